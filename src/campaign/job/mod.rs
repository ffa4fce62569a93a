//! The job: the JSON document that asks for a campaign. Parses it and reports every problem of its form. It reads no audience
//! and knows no account.

mod form;
mod limits;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

pub use form::job_schema;
pub use limits::{InvalidRate, JobLimits, Rate};

use super::phone::{InvalidPhone, Phone};
use super::problem::{Problem, json_error};
use super::rules::{self, Limit, Rule, Whitespace, is_template};
use super::{
    digest::digest, id::CampaignId, json, notice::NoticeSubject, phone_parser::PhoneParser,
    schedule::Schedule,
};

/// A valid job. Its audience and its account are not checked yet.
#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    /// Id of the campaign; a job without one gets a `UUIDv7`.
    pub id: Option<CampaignId>,
    /// Display name.
    pub name: Option<String>,
    /// Name of the account in the configuration.
    pub account: String,
    /// Sender number.
    #[serde(deserialize_with = "sender")]
    pub from: Phone,
    /// Source of the recipients.
    pub audience: AudienceSource,
    /// Message content, with placeholders.
    pub message: Value,
    /// Data that the provider returns with each report, with placeholders.
    pub custom_data: Option<String>,
    /// URL to which reports are forwarded.
    pub status_callback: Option<String>,
    /// Data that Kaleyra returns with each report besides the message reference, with placeholders.
    #[serde(default)]
    pub extra_info: ExtraInfo,
    /// Limits of the campaign.
    #[serde(default)]
    pub limits: JobLimits,
    /// Start, sending hours and expiry.
    #[serde(default)]
    pub schedule: Schedule,
    /// Share of rejections that holds the campaign.
    pub stop_when: Option<StopWhen>,
    /// Treatment of messages in doubt.
    #[serde(default)]
    pub on_in_doubt: OnInDoubt,
    /// Treatment of whitespace that Meta refuses in template parameters.
    #[serde(default)]
    pub whitespace: Whitespace,
    /// The document without `id` and `$schema`. It is compared when a job with a known id is submitted.
    #[serde(skip)]
    pub document: Value,
    /// Strings of `message` and `custom_data` with placeholders, by JSON pointer.
    #[serde(skip)]
    pub limits_of_strings: Vec<(String, Limit)>,
    /// Whether each rendered message must be checked as a whole.
    #[serde(skip)]
    pub check_rendered: bool,
}

/// Source of the recipients.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudienceSource {
    /// A CSV file.
    Csv(CsvSource),
    /// A list in the job: objects with `phone` and any variables.
    Recipients(Vec<Map<String, Value>>),
}

/// A CSV file or workbook, and how to read it.
#[derive(Clone, Debug, Deserialize)]
pub struct CsvSource {
    /// Path below the audience root.
    pub path: Option<String>,
    /// URL.
    pub url: Option<String>,
    /// Delimiter; detected if `None`.
    pub delimiter: Option<char>,
    /// Name of the phone column; found by name if `None`.
    pub phone: Option<String>,
    /// Region of numbers without a country code.
    pub default_region: Option<String>,
    /// Worksheet of a workbook; the first visible one if `None`.
    pub sheet: Option<String>,
    /// Treatment of hidden rows of a worksheet.
    #[serde(default)]
    pub hidden_rows: HiddenRows,
    /// Character encoding; detected if `None`.
    pub encoding: Option<String>,
}

/// Treatment of rows that a filter or a person has hidden in a worksheet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenRows {
    /// Hidden rows are sent like others.
    #[default]
    Send,
    /// Hidden rows are skipped.
    Skip,
}

/// Kaleyra's two free texts of a message, and its origin (document 002).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ExtraInfo {
    /// First text.
    pub ref1: Option<String>,
    /// Second text.
    pub ref2: Option<String>,
    /// Origin of a message: one of the values of document 002.
    pub wa_source: Option<String>,
}

/// Holds a campaign with too many rejections before the whole audience is lost.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct StopWhen {
    /// Share of rejected messages that holds the campaign, in per cent.
    pub rejected_percent: u64,
    /// Minimum number of settled messages.
    #[serde(default = "StopWhen::after_by_default")]
    pub after: u64,
}

impl StopWhen {
    fn after_by_default() -> u64 {
        100
    }

    /// Returns whether the share of rejected messages is reached.
    pub fn is_reached(self, rejected: u64, settled: u64) -> bool {
        settled >= self.after
            && u128::from(rejected) * 100 >= u128::from(settled) * u128::from(self.rejected_percent)
    }
}

/// What becomes of messages in doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInDoubt {
    /// They are never sent again automatically.
    #[default]
    Hold,
    /// They are sent again: the job's author prefers a duplicate to a gap.
    Resend,
}

impl Job {
    /// Parses a job.
    ///
    /// ```
    /// use flowcast::campaign::Job;
    ///
    /// let problems = Job::read(br#"{ "version": 1, "acount": "main" }"#).unwrap_err();
    /// assert_eq!(problems[0].pointer, "/acount");
    /// assert_eq!(problems[0].message, r#"unknown field; did you mean "account"?"#);
    /// ```
    ///
    /// # Errors
    ///
    /// Returns every problem of its form, each with its JSON pointer.
    pub fn read(json: &[u8]) -> Result<Self, Vec<Problem>> {
        let mut document = json::read(json).map_err(|problem| vec![problem])?;
        if let Some(version) = document.get("version").and_then(Value::as_u64)
            && version != 1
        {
            let message = format!("unknown version {version}; this flowcast reads version 1");
            return Err(vec![Problem::new("/version", message)]);
        }
        if let Value::String(_) = document {
            let message = "must be an object, not a text; was the job encoded as JSON twice?";
            return Err(vec![Problem::new("", message)]);
        }
        let findings = rules::check(&Rule::Object(form::JOB), &document, "");
        let (limits, check_rendered) = (findings.limits, findings.check_rendered);
        findings.problems.or(())?;
        let mut job: Self = serde_json::from_value(document.clone())
            .map_err(|error| vec![Problem::new("", json_error(&error))])?;
        if let Some(map) = document.as_object_mut() {
            map.shift_remove("id");
            map.shift_remove("$schema");
        }
        job.document = document;
        job.limits_of_strings = limits;
        job.settle_whitespace()?;
        job.check_rendered = check_rendered;
        Ok(job)
    }

    /// Refuses or joins whitespace of parameters without placeholders; the others are checked when they are rendered.
    fn settle_whitespace(&mut self) -> Result<(), Vec<Problem>> {
        for (_, limit) in &mut self.limits_of_strings {
            limit.whitespace = limit.whitespace.map(|_| self.whitespace);
        }
        let components = self.message.pointer_mut("/template/components").and_then(Value::as_array_mut);
        let mut problems = Vec::new();
        for (nth, component) in components.into_iter().flatten().enumerate() {
            let parameters = component.get_mut("parameters").and_then(Value::as_array_mut);
            for (place, parameter) in parameters.into_iter().flatten().enumerate() {
                let is_text = parameter["type"] == "text";
                let Some(Value::String(text)) = parameter.get_mut("text").filter(|_| is_text) else {
                    continue;
                };
                if is_template(text) || !Whitespace::is_refused(text) {
                    continue;
                }
                match self.whitespace {
                    Whitespace::Join => *text = Whitespace::joined(text),
                    Whitespace::Refuse => {
                        let pointer = format!("/message/template/components/{nth}/parameters/{place}/text");
                        problems.push(Problem::new(pointer, Whitespace::REFUSED_WHITESPACE));
                    }
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Returns the flow that recipients fill in: its id, or the template with a flow button. `None` without a flow, or if it
    /// differs between recipients.
    pub fn flow(&self) -> Option<String> {
        let text = |pointer: &str| self.message.pointer(pointer)?.as_str().filter(|text| !is_template(text));
        if let Some(id) = text("/interactive/action/parameters/flow_id") {
            return Some(id.into());
        }
        let components = self.message.pointer("/template/components")?.as_array()?;
        let has_flow = components.iter().any(|component| component["sub_type"] == "flow");
        has_flow.then(|| text("/template/name")).flatten().map(|name| format!("template:{name}"))
    }

    /// Returns whether its messages are flows, or templates with a flow button.
    pub fn sends_flows(&self) -> bool {
        let is_flow = self.message.pointer("/interactive/type").is_some_and(|kind| kind == "flow");
        let components = self.message.pointer("/template/components").and_then(Value::as_array);
        is_flow || components.is_some_and(|all| all.iter().any(|component| component["sub_type"] == "flow"))
    }

    /// Returns the subjects of notices that concern the job: its template, if all recipients get the same, and its sender
    /// number.
    pub fn noticed(&self) -> Vec<NoticeSubject> {
        let template = self.message.pointer("/template/name").and_then(Value::as_str);
        let template =
            template.filter(|name| !is_template(name)).map(|name| NoticeSubject::Template(name.into()));
        template.into_iter().chain([NoticeSubject::Number(self.from.digits().to_string())]).collect()
    }

    /// Returns a digest of the job that does not depend on its id and the order of its fields.
    pub fn fingerprint(&self) -> String {
        digest(&self.document).to_hex().to_string()
    }

    /// Returns a digest of the message content: the same under another id and with other limits.
    pub fn content_fingerprint(&self) -> String {
        let part = |name: &str| self.document.get(name).cloned().unwrap_or_default();
        let parts = ["message", "custom_data", "extra_info"].map(part);
        digest(&Value::from(parts.to_vec())).to_hex().to_string()
    }
}

/// Parses a sender number in international form.
fn sender<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Phone, D::Error> {
    let text = String::deserialize(deserializer)?;
    PhoneParser::listed(&text).map_err(|_| de::Error::custom(InvalidPhone))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::rules::Field;
    use super::*;

    fn job() -> Value {
        json!({
            "version": 1, "id": "a", "account": "main", "from": "+912248931479",
            "audience": { "recipients": [{ "phone": "+919876543210" }] },
            "message": { "type": "text", "text": { "body": "Hello {{ name }}" } },
        })
    }

    fn faults(job: &Value) -> Vec<String> {
        match Job::read(job.to_string().as_bytes()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut job = job();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        job.pointer_mut(parent).unwrap()[key] = value;
        job
    }

    fn check_fields(rule: &Rule) {
        let all = |fields: &[Field]| {
            for field in fields {
                assert!(!field.about.is_empty(), "{} has no description", field.name);
                assert!(
                    serde_json::from_str::<Value>(field.example).is_ok(),
                    "the example of {}",
                    field.name
                );
                check_fields(&field.rule);
            }
        };
        match rule {
            Rule::Object(object) => all(object.fields),
            Rule::Choice(choice) => {
                all(choice.common);
                choice.arms.iter().for_each(|(_, arm)| all(arm.fields));
            }
            Rule::List { of, .. } | Rule::Fixed(of) => check_fields(of),
            _ => {}
        }
    }

    #[test]
    fn each_field_has_a_description_and_an_example() {
        check_fields(&Rule::Object(form::JOB));
    }

    #[test]
    fn a_plain_job_is_read() {
        let job = Job::read(job().to_string().as_bytes()).unwrap();
        assert_eq!(job.account, "main");
        assert_eq!(job.limits_of_strings[0].0, "/message/text/body");
        assert_eq!(job.limits_of_strings[0].1.max, 4096);
    }

    #[test]
    fn an_unknown_field_names_its_place_and_the_nearest_name() {
        assert_eq!(
            faults(&with("/acount", json!("x"))),
            [r#"acount: unknown field; did you mean "account"? (/acount)"#]
        );
        assert_eq!(
            faults(&with("/message/text/bodi", json!("x"))),
            [r#"message text bodi: unknown field; did you mean "body"? (/message/text/bodi)"#]
        );
        assert_eq!(
            faults(&with("/message/type", json!("txt"))),
            [r#"message type: "txt" is unknown; did you mean "text"? (/message/type)"#]
        );
    }

    #[test]
    fn a_sender_is_read_in_any_international_spelling() {
        for spelling in ["+91 22 4893 1479", "0091-22-48931479", "tel:+91-22-4893-1479", "+912248931479"] {
            let job = with("/from", json!(spelling));
            let job = Job::read(job.to_string().as_bytes()).unwrap();
            assert_eq!(job.from.to_string(), "+912248931479", "{spelling}");
        }
        // A test number that no numbering plan has is one of its owner's.
        let job = with("/from", json!("+10000000000"));
        assert_eq!(Job::read(job.to_string().as_bytes()).unwrap().from.to_string(), "+10000000000");
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut job = with("/from", json!("022 4893"));
        job["limits"] = json!({ "messages": "0/s" });
        job.as_object_mut().unwrap().remove("account");
        let faults = faults(&job).join("\n");
        assert!(faults.contains("from: write the number with + and the country code"), "{faults}");
        assert!(faults.contains("limits messages: a limit of 0 allows nothing"), "{faults}");
        assert!(faults.contains(r#"the job: "account" is required but missing"#), "{faults}");
    }

    #[test]
    fn an_invalid_document_is_refused_with_its_place() {
        let read = |bytes: &[u8]| Job::read(bytes).unwrap_err()[0].to_string();
        assert!(read(b"{\"version\": 1,\n oops").contains("line 2 column 2"));
        assert!(read(b"\xff\xfe").contains("not UTF-8 (byte 0)"));
        assert!(read(b"").contains("is not JSON"));
        assert!(read(b"[]").contains("must be an object, not a list"));
        assert!(read(b"{\"version\": 2}").contains("reads version 1"));
    }

    #[test]
    fn a_schedule_that_can_not_be_met_is_refused() {
        let schedule =
            json!({ "start_at": "2026-11-02T09:00:00+05:30", "expires_at": "2026-11-01T09:00:00+05:30" });
        assert!(
            faults(&with("/schedule", schedule))[0]
                .starts_with("schedule expires at: must be after start_at")
        );
        let window = json!({ "window": { "from": "09:00", "to": "21:00", "timezone": "Asia/Kolkatta" } });
        assert!(faults(&with("/schedule", window))[0].starts_with("schedule window timezone: "));
    }

    #[test]
    fn the_same_content_has_the_same_fingerprint_in_any_order() {
        let a = Job::read(br#"{"version":1,"id":"a","account":"m","from":"+912248931479","audience":{"recipients":[{"phone":"1"}]},"message":{"type":"text","text":{"body":"x"}}}"#).unwrap();
        let b = Job::read(br#"{"message":{"text":{"body":"x"},"type":"text"},"audience":{"recipients":[{"phone":"1"}]},"from":"+912248931479","account":"m","version":1}"#).unwrap();
        assert_eq!(a.fingerprint(), b.fingerprint());
        let c = Job::read(br#"{"version":1,"account":"m","from":"+912248931479","audience":{"recipients":[{"phone":"2"}]},"message":{"type":"text","text":{"body":"x"}}}"#).unwrap();
        assert_ne!(a.fingerprint(), c.fingerprint());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Job::read(&bytes);
        }

        #[test]
        fn no_value_in_any_place_makes_the_reader_panic(place in 0..12_usize, text in "\\PC{0,12}|\\{\\{.{0,12}|[{}%# |a-z()'\"]{0,16}", number in proptest::num::f64::ANY) {
            let places = ["/version", "/id", "/account", "/from", "/audience", "/audience/recipients", "/message",
                "/message/type", "/message/text", "/message/text/body", "/limits", "/schedule"];
            for value in [json!(text), json!(number), json!([text]), json!({ &text: text })] {
                let _ = faults(&with(places[place], value));
            }
        }
    }

    #[test]
    fn a_flow_is_identified_by_its_id_or_its_template() {
        let flow = |message: Value| {
            let mut job = Job::read(job().to_string().as_bytes()).unwrap();
            job.message = message;
            job.flow()
        };
        let interactive =
            |id: &str| json!({ "interactive": { "action": { "parameters": { "flow_id": id } } } });
        assert_eq!(flow(interactive("1323")).as_deref(), Some("1323"));
        assert_eq!(flow(interactive("{{ flow }}")), None);
        let template =
            |kind: &str| json!({ "template": { "name": "t1", "components": [{ "sub_type": kind }] } });
        assert_eq!(flow(template("flow")).as_deref(), Some("template:t1"));
        assert_eq!(flow(template("url")), None);
        assert_eq!(flow(json!({ "text": { "body": "x" } })), None);
    }

    #[test]
    fn rejections_stop_a_campaign_only_after_enough_messages() {
        let stop = StopWhen { rejected_percent: 20, after: 500 };
        assert!(!stop.is_reached(499, 499));
        assert!(!stop.is_reached(99, 500));
        assert!(stop.is_reached(100, 500));
    }
}
