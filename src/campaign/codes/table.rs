//! The table of codes: facts from the documents of the providers and of Meta, in our own words.

use super::Advice::{self, FixTemplate, SkipPerson, StopCampaign, Wait};
use super::Code;
use super::Effect::{
    self, HoldAccount, HoldCampaign, HoldFlow, HoldFlows, HoldSender, Reject, Retry, Slow, SlowFlow,
};
use super::Source::{self, Exotel, Flowcast, Http, Kaleyra, Meta};

const fn code(source: Source, code: &'static str, also: &'static str, does: (Effect, Advice)) -> Code {
    Code { source, code, also, effect: does.0, advice: does.1, meaning: "", remedy: "" }
}

/// Returns a code that is not a failure.
const fn fine(source: Source, code: &'static str, also: &'static str) -> Code {
    self::code(source, code, also, (Effect::None, Advice::None))
}

impl Code {
    const fn means(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }

    const fn remedy(self, remedy: &'static str) -> Self {
        Self { remedy, ..self }
    }
}

const PERSON: (Effect, Advice) = (Reject, SkipPerson);
const CONTENT: (Effect, Advice) = (Reject, FixTemplate);
const LATER: (Effect, Advice) = (Retry, Wait);
const ACCOUNT: (Effect, Advice) = (HoldAccount, StopCampaign);
const SENDER: (Effect, Advice) = (HoldSender, StopCampaign);
const TEMPLATE: (Effect, Advice) = (HoldCampaign, FixTemplate);
/// Exotel's codes arrive in delivery reports, after the message was accepted: flowcast does nothing about them.
const REPORTED_WAIT: (Effect, Advice) = (Reject, Wait);
const REPORTED_STOP: (Effect, Advice) = (Reject, StopCampaign);

/// All codes, by source.
pub const CODES: &[Code] = &[
    // Document 001, "Detailed Status Code".
    fine(Exotel, "EX_MESSAGE_SENT", "30001").means("The message is on its way to the recipient."),
    fine(Exotel, "EX_MESSAGE_DELIVERED", "30002, 25001").means("The message is on the recipient's device."),
    fine(Exotel, "EX_MESSAGE_SEEN", "30003").means("The recipient has opened the message."),
    code(Exotel, "EX_SYSTEM_ERROR", "30004", REPORTED_WAIT)
        .means("WhatsApp or the account's access to it failed, because of a token, a permission or a service that \
             was down.")
        .remedy("check the account in Exotel's console and correct it, then send these messages again."),
    code(Exotel, "EX_NUMBER_ERROR", "30005", PERSON)
        .means("There is a problem with a phone number.")
        .remedy("check that the number is on WhatsApp; if all recipients have this code, check the sender number."),
    code(Exotel, "EX_SETUP_ERROR", "30006", REPORTED_STOP)
        .means("The sender number is not set up for this.")
        .remedy("ask Exotel to finish setting up the number."),
    code(Exotel, "EX_RATE_LIMIT_HIT", "30007", REPORTED_WAIT)
        .means("More messages were sent than the sender number allows.")
        .remedy("lower the account's limits.messages, then send these messages again."),
    code(Exotel, "EX_SPAM_RATE_LIMIT_HIT", "30008", REPORTED_STOP)
        .means("Too many recipients have blocked or reported the sender number.")
        .remedy("pause it, check the number's quality rating, and message only recipients who opted in."),
    code(Exotel, "EX_TOO_MANY_REQUEST", "30009", REPORTED_WAIT)
        .means("Too many messages were sent in too short a time.")
        .remedy("lower the account's limits, then send these messages again."),
    code(Exotel, "EX_INVALID_REQUEST", "30010", CONTENT)
        .means("WhatsApp could not read the message.")
        .remedy("compare the content with the provider's documentation."),
    code(Exotel, "EX_UNKNOWN_ERROR", "30011", REPORTED_WAIT)
        .means("The message failed for an unknown reason.")
        .remedy("send these messages again later; if they fail again, give Exotel one of their SIDs."),
    code(Exotel, "EX_INVALID_RECIPIENT", "30012", PERSON)
        .means("The number is not a valid recipient.")
        .remedy("remove the number from the list."),
    code(Exotel, "EX_INCAPABLE_RECIPIENT", "30013", PERSON)
        .means("The recipient cannot receive the message: the number is not on WhatsApp, or the app is too old.")
        .remedy("remove the number from the list, or use another channel."),
    code(Exotel, "EX_RECIPIENT_BLOCKED", "30014", PERSON)
        .means("The number is not on the list of allowed recipients.")
        .remedy("remove the number from the list; for a test account, allow the number first."),
    code(Exotel, "EX_UNSUPPORTED_MESSAGE", "30015", CONTENT)
        .means("This message type is not supported.")
        .remedy("use another message type."),
    code(Exotel, "EX_MEDIA_DOWNLOAD_ERROR", "30016", CONTENT)
        .means("WhatsApp could not fetch the image, video or document.")
        .remedy("check that the link is public, answers quickly and uses https."),
    code(Exotel, "EX_MEDIA_UPLOAD_ERROR", "30017", CONTENT)
        .means("The type of the media file is not supported.")
        .remedy("use a type and a size that WhatsApp accepts."),
    code(Exotel, "EX_REENGAGEMENT_ERROR", "30018", CONTENT)
        .means("The recipient has not written within the last 24 hours, so only a template may be sent.")
        .remedy("send an approved template instead."),
    code(Exotel, "EX_INVALID_PARAM", "30019", CONTENT)
        .means("A parameter is invalid.")
        .remedy("check the content's fields."),
    code(Exotel, "EX_MISSING_PARAM", "30020", CONTENT)
        .means("A parameter is missing.")
        .remedy("compare the content's fields with the template."),
    code(Exotel, "EX_INVALID_PARAM_VALUE", "30021", CONTENT)
        .means("A parameter has a value that is not allowed.")
        .remedy("check the values in the rows that failed."),
    code(Exotel, "EX_TEMPLATE_ERROR", "30022", CONTENT)
        .means("The values break the template's format.")
        .remedy("avoid line breaks, tabs and runs of spaces in values."),
    code(Exotel, "EX_TEMPLATE_PARAM_ERROR", "30023", CONTENT)
        .means("The number of parameters differs from the template's.")
        .remedy("give each component as many parameters as the template has."),
    code(Exotel, "EX_TEMPLATE_NOT_FOUND", "30024", CONTENT)
        .means("The template does not exist in this language, or is not approved.")
        .remedy("check its name and language; sync the templates in Exotel's console."),
    code(Exotel, "EX_TEMPLATE_TEXT_TOO_LONG", "30025", CONTENT)
        .means("The template is too long with these values.")
        .remedy("shorten the values."),
    code(Exotel, "EX_INVALID_TEMPLATE_NAMESPACE", "30026", CONTENT)
        .means("The template's namespace is wrong.")
        .remedy("sync the templates in Exotel's console."),
    code(Exotel, "EX_MESSAGE_PENDING_TOO_LONG", "30027", PERSON)
        .means("The message waited too long for the recipient's device.")
        .remedy("the recipient was offline for a long time; send the message again only if it is still relevant."),
    code(Exotel, "EX_MESSAGE_EXPIRED", "30028", PERSON)
        .means("The message expired before it could be delivered.")
        .remedy("the recipient was offline for a long time; send the message again only if it is still relevant."),
    code(Exotel, "EX_MESSAGE_TOO_LONG", "30029", CONTENT)
        .means("The text has more than 4,096 characters.")
        .remedy("shorten the text."),
    code(Exotel, "EX_WEBHOOK_ERROR", "30030", REPORTED_STOP)
        .means("No webhook is configured for the number.")
        .remedy("configure one in Exotel's console."),
    code(Exotel, "EX_SECTION_COUNT_ERROR", "30031", CONTENT)
        .means("The list has too few or too many sections.")
        .remedy("use 1 to 10 sections."),
    code(Exotel, "EX_ROWS_COUNT_ERROR", "30032", CONTENT)
        .means("The list has too few or too many rows.")
        .remedy("use 1 to 10 rows over all sections."),
    code(Exotel, "EX_PRODUCT_COUNT_ERROR", "30033", CONTENT)
        .means("The message has too few or too many products.")
        .remedy("change the number of products."),
    code(Exotel, "EX_CATALOGUE_NOT_FOUND", "30034", CONTENT)
        .means("The catalogue does not exist.")
        .remedy("check the catalogue's id."),
    code(Exotel, "EX_CATALOGUE_NOT_LINKED", "30035", CONTENT)
        .means("The catalogue is not linked to the sender number.")
        .remedy("link it in Meta's dashboard."),
    code(Exotel, "EX_MISSING_PRODUCT", "30036", CONTENT)
        .means("A product is missing from the catalogue.")
        .remedy("add the product, or remove it from the message."),
    code(Exotel, "EX_PRODUCT_NOT_FOUND", "30037", CONTENT)
        .means("The message's products are not in the catalogue.")
        .remedy("check the products' ids."),
    code(Exotel, "EX_PRODUCT_COMPLIANCE_ERROR", "30038", CONTENT)
        .means("The products violate WhatsApp's commerce policy.")
        .remedy("remove them from the message."),
    code(Exotel, "EX_INVALID_HEADER", "30039", CONTENT)
        .means("The header is malformed.")
        .remedy("check the header's type and fields."),
    code(Exotel, "EX_MISSING_COMPLIANCE", "30040", CONTENT)
        .means("Information that the law requires of sellers is missing.")
        .remedy("complete the business's details in Meta's dashboard."),
    code(Exotel, "EX_CHAR_POLICY_VIOLATION", "30041", CONTENT)
        .means("The text contains characters that are not allowed there.")
        .remedy("avoid line breaks, tabs and runs of spaces in values."),
    // Document 002.
    fine(Kaleyra, "WA202", "").means("The message was accepted."),
    code(Kaleyra, "RBC001", "", ACCOUNT)
        .means("The account SID or the API key is wrong.")
        .remedy("correct account_sid and api_key of the account."),
    code(Kaleyra, "WA401", "", SENDER)
        .means("The sender number does not belong to this account.")
        .remedy("check \"from\" in the job and the numbers of the account."),
    code(Kaleyra, "WA-401", "", SENDER)
        .means("The sender number is not enabled for this version of the API.")
        .remedy("check \"from\" in the job; ask Kaleyra to enable the number, and check the region."),
    code(Kaleyra, "WA400", "", CONTENT)
        .means("Kaleyra could not read the message.")
        .remedy("compare the content with Kaleyra's documentation."),
    code(Kaleyra, "WA500", "", LATER)
        .means("Kaleyra had an internal error.")
        .remedy("flowcast retries automatically."),
    code(Kaleyra, "E110", "", ACCOUNT)
        .means("The account's balance is too low.")
        .remedy("top up the account; sending resumes automatically."),
    // Meta's Cloud API; the providers pass these codes through.
    code(Meta, "0", "AuthException", ACCOUNT)
        .means("The access token is no longer valid.")
        .remedy("create a new token and set it as the account's api_token."),
    code(Meta, "1", "API Unknown", LATER)
        .means("WhatsApp failed, or could not read the request.")
        .remedy("flowcast retries automatically."),
    code(Meta, "2", "API Service", LATER)
        .means("WhatsApp is down or overloaded.")
        .remedy("flowcast retries automatically."),
    code(Meta, "3", "API Method", ACCOUNT)
        .means("The token lacks the permission to send messages.")
        .remedy("grant it whatsapp_business_messaging."),
    code(Meta, "4", "API Too Many Calls", (Slow, Wait))
        .means("The app has made too many API calls.")
        .remedy("flowcast slows down automatically; lower limits.requests if the code persists."),
    code(Meta, "10", "Permission Denied", ACCOUNT)
        .means("The permission was not granted, or was revoked.")
        .remedy("grant the token its permissions again."),
    code(Meta, "33", "Parameter value is not valid", ACCOUNT)
        .means("The sender number no longer exists.")
        .remedy("check account_sid, which is the phone number's id."),
    code(Meta, "100", "Invalid parameter", CONTENT)
        .means("A parameter is invalid or unknown.")
        .remedy("check the content's fields."),
    code(Meta, "190", "Access token has expired", ACCOUNT)
        .means("The access token has expired.")
        .remedy("create a new token and set it as the account's api_token."),
    code(Meta, "200", "API Permission", ACCOUNT)
        .means("A permission is missing (Meta's codes 200 to 299).")
        .remedy("grant the token its permissions again."),
    code(Meta, "368", "Temporarily blocked for policies violations", ACCOUNT)
        .means("The business account is restricted because it violated a policy.")
        .remedy("read the notice in Meta's Business Support, and appeal there."),
    code(Meta, "80007", "Rate limit issues", (Slow, Wait))
        .means("The business account has reached its rate limit.")
        .remedy("flowcast slows down automatically; lower limits.requests if the code persists."),
    code(Meta, "130429", "Rate limit hit", (Slow, Wait))
        .means("The sender number has reached its throughput limit.")
        .remedy("flowcast slows down automatically; lower limits.messages if the code persists."),
    code(Meta, "130472", "User's number is part of an experiment", PERSON)
        .means("Meta withholds marketing messages from this recipient as an experiment.")
        .remedy("use another channel; sending the message again does not help."),
    code(Meta, "130497", "Restricted from messaging users in this country", PERSON)
        .means("The business may not message recipients in this country.")
        .remedy("remove the country's numbers from the list."),
    code(Meta, "131000", "Something went wrong", LATER)
        .means("WhatsApp had an internal error.")
        .remedy("flowcast retries automatically."),
    code(Meta, "131005", "Access denied", ACCOUNT)
        .means("The token may not use this number.")
        .remedy("grant the token its permissions again."),
    code(Meta, "131008", "Required parameter is missing", CONTENT)
        .means("A parameter is missing.")
        .remedy("compare the content's fields with the documentation."),
    code(Meta, "131009", "Parameter value is not valid", CONTENT)
        .means("A parameter has a value that is not allowed.")
        .remedy("check the values in the rows that failed."),
    code(Meta, "131016", "Service unavailable", LATER)
        .means("WhatsApp is temporarily unavailable.")
        .remedy("flowcast retries automatically."),
    code(Meta, "131021", "Recipient cannot be sender", PERSON)
        .means("The recipient is the sender number itself.")
        .remedy("remove the number from the list."),
    code(Meta, "131026", "Message undeliverable", PERSON)
        .means("The recipient cannot receive the message: not on WhatsApp, terms not accepted, or the app is too \
             old.")
        .remedy("remove the number from the list, or use another channel."),
    code(Meta, "131031", "Account has been locked", ACCOUNT)
        .means("The business account is locked.")
        .remedy("read the notice in Meta's Business Support."),
    code(Meta, "131037", "Display name approval needed", ACCOUNT)
        .means("The sender number's display name is not approved.")
        .remedy("have the display name approved in Meta's dashboard."),
    code(Meta, "131042", "Business eligibility payment issue", ACCOUNT)
        .means("There is a problem with the business account's payment.")
        .remedy("correct the payment method; sending resumes automatically."),
    code(Meta, "131045", "Incorrect certificate", ACCOUNT)
        .means("The sender number is not registered properly.")
        .remedy("register the number again."),
    code(Meta, "131047", "Re-engagement message", CONTENT)
        .means("The recipient has not written within the last 24 hours, so only a template may be sent.")
        .remedy("send an approved template instead."),
    code(Meta, "131048", "Spam rate limit hit", (HoldCampaign, StopCampaign))
        .means("Too many recipients have blocked or reported the sender number, so it may send less.")
        .remedy("check the number's quality rating, and message only recipients who opted in."),
    code(Meta, "131049", "Not delivered to maintain healthy ecosystem engagement", PERSON)
        .means("The recipient already gets enough marketing messages from all businesses.")
        .remedy("do not send it again within 24 hours; it would be refused again."),
    code(Meta, "131050", "User has stopped receiving marketing messages", PERSON)
        .means("The recipient has opted out of your marketing messages.")
        .remedy("remove the number from the list permanently."),
    code(Meta, "131051", "Unsupported message type", CONTENT)
        .means("This message type is not supported.")
        .remedy("use another message type."),
    code(Meta, "131052", "Media download error", CONTENT)
        .means("The media could not be fetched.")
        .remedy("check that the link is public, answers quickly and uses https."),
    code(Meta, "131053", "Media upload error", CONTENT)
        .means("The media could not be uploaded.")
        .remedy("use a type and a size that WhatsApp accepts."),
    code(Meta, "131056", "Pair rate limit hit", LATER)
        .means("Too many messages were sent to this recipient in a short time; one every 6 seconds is allowed.")
        .remedy("flowcast retries automatically."),
    code(Meta, "131057", "Account in maintenance mode", ACCOUNT)
        .means("The business account is in maintenance mode, e.g. while its throughput is raised.")
        .remedy("flowcast holds the account, and resumes when the maintenance ends."),
    code(Meta, "132000", "Template param count mismatch", CONTENT)
        .means("The number of parameters differs from the template's.")
        .remedy("give each component as many parameters as the template has."),
    code(Meta, "132001", "Template does not exist", TEMPLATE)
        .means("The template does not exist in this language, or is not approved.")
        .remedy("check its name and language in Meta's dashboard, then resume."),
    code(Meta, "132005", "Template hydrated text too long", CONTENT)
        .means("The template is too long with these values.")
        .remedy("shorten the values."),
    code(Meta, "132007", "Template format character policy violated", CONTENT)
        .means("The values contain characters that the template does not allow.")
        .remedy("avoid line breaks, tabs and runs of spaces in values."),
    code(Meta, "132012", "Template parameter format mismatch", CONTENT)
        .means("The type of a parameter differs from the template's.")
        .remedy("compare the parameters with the template."),
    code(Meta, "132015", "Template is paused", TEMPLATE)
        .means("The template is paused because of recipients' negative feedback.")
        .remedy("change the template in Meta's dashboard, have it approved again, then resume."),
    code(Meta, "132016", "Template is disabled", TEMPLATE)
        .means("The template was paused too often and is permanently disabled.")
        .remedy("create a new template and a new campaign."),
    code(Meta, "132068", "Flow is blocked", (HoldFlow, StopCampaign))
        .means("The flow is blocked because its endpoint failed too often. It can no longer be sent.")
        .remedy("fix the endpoint, publish a copy of the flow, and send the copy in a new campaign."),
    code(Meta, "132069", "Flow is throttled", (SlowFlow, Wait))
        .means("The flow is throttled to 10 messages an hour because its endpoint is unhealthy.")
        .remedy("fix the flow's endpoint; flowcast sends slowly until then. To resend messages that were \
             accepted but not delivered: flowcast retry ID --code 132069."),
    code(Meta, "133004", "Server temporarily unavailable", LATER)
        .means("WhatsApp is temporarily unavailable.")
        .remedy("flowcast retries automatically."),
    code(Meta, "133010", "Phone number not registered", ACCOUNT)
        .means("The sender number is not registered.")
        .remedy("register the number in Meta's dashboard."),
    code(Meta, "135000", "Generic user error", CONTENT)
        .means("The message failed because of an unspecified parameter.")
        .remedy("compare the content with the documentation."),
    // Document 001, "HTTP Error Codes": Exotel gives them to single messages too.
    code(Http, "400", "", CONTENT)
        .means("A field of the message is invalid or missing.")
        .remedy("read the text next to the code."),
    code(Http, "401", "", ACCOUNT)
        .means("The credentials are missing or wrong.")
        .remedy("correct the account's credentials."),
    code(Http, "402", "", ACCOUNT)
        .means("The plan does not allow this, or is used up.")
        .remedy("check the account's plan and balance."),
    code(Http, "403", "", (HoldFlows, StopCampaign))
        .means("The account or its number may not do this, e.g. because flows are not enabled for it.")
        .remedy("ask the provider to enable it."),
    code(Http, "404", "", (HoldCampaign, StopCampaign))
        .means("The request names something that does not exist.")
        .remedy("check account_sid, the address, and the ids in the message."),
    code(Http, "429", "", (Slow, Wait))
        .means("Too many requests.")
        .remedy("flowcast slows down automatically."),
    code(Http, "500", "", LATER)
        .means("The provider had an internal error.")
        .remedy("flowcast retries automatically."),
    code(Http, "503", "", LATER)
        .means("The provider is temporarily unavailable.")
        .remedy("flowcast retries automatically."),
    // flowcast's own, and its reasons to skip a row.
    code(Flowcast, "abandoned", "", PERSON)
        .means("The message was in doubt, and an operator abandoned it. It may have been delivered.")
        .remedy("to send it again, name the code: flowcast retry ID --code abandoned."),
    code(Flowcast, "invalid_number", "", PERSON)
        .means("The phone column contains no valid number.")
        .remedy("correct the number in the list."),
    code(Flowcast, "duplicate", "", PERSON)
        .means("An earlier row has the same number.")
        .remedy("the recipient gets one message, from the earlier row."),
    code(Flowcast, "suppressed", "", PERSON)
        .means("The number is on the suppression list.")
        .remedy("remove the number from the audience; flowcast suppress list shows the suppression list."),
    code(Flowcast, "missing_variable", "", CONTENT)
        .means("A column that the message needs is empty in this row.")
        .remedy("fill it in, or give the placeholder a default."),
    code(Flowcast, "invalid_content", "", CONTENT)
        .means("The message is too long or invalid with this row's values.")
        .remedy("shorten or correct the values."),
    code(Flowcast, "expired", "", (Reject, StopCampaign))
        .means("The campaign's expires_at passed before the message was sent.")
        .remedy("send the remaining messages in a new campaign, if they are still relevant."),
    code(Flowcast, "cancelled", "", (Reject, StopCampaign))
        .means("The campaign was cancelled before the message was sent.")
        .remedy("send the remaining messages in a new campaign, if they are still relevant."),
];
