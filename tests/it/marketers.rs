//! The pages as marketers use them for the first time: numbers that agree, errors in their words, ways back.

use flowcast::sandbox::Behaviour;
use reqwest::Method;
use reqwest::header::LOCATION;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::dashboard::Visitor;
use crate::service::{Service, TOKENS};
use crate::support::{job, sandbox};

/// Uploads an audience as the first page does, and returns the address of the draft.
async fn begin(visitor: &Visitor<'_>, csv: &str) -> String {
    let part = Part::bytes(csv.as_bytes().to_vec()).file_name("people.csv");
    let form = Form::new().text("name", "Reminder").part("file", part);
    let begun = visitor.request(Method::POST, "/new").multipart(form).send().await.unwrap();
    begun.headers()[LOCATION].to_str().unwrap().trim_end_matches("/audience").to_owned()
}

/// A page as its reader sees it.
async fn read(visitor: &Visitor<'_>, path: &str) -> String {
    shown(&visitor.get(path).await.1)
}

fn shown(page: &str) -> String {
    page.replace("&#x2f;", "/").replace("&#x27;", "'").replace("&quot;", "\"")
}

/// The fields of a text.
fn text<'f>(from: &'f str, body: &'f str) -> [(&'static str, &'f str); 7] {
    [
        ("account", "main"),
        ("from", from),
        ("kind", "text"),
        ("form_kind", "text"),
        ("/message/type", "text"),
        ("/message/text/body", body),
        ("do", "next"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_people_of_a_campaign_are_those_who_get_a_message() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let rows = "phone,name\n12,Nobody\n+919876500001,Asha\n+919876500002,Ravi\n+919876500002,Ravi\n+919876500003,Ila\n";
    service.fleet.world.write("audience.csv", rows);
    visitor.submit(&job()).await;
    service.until_state("c1", "completed").await;
    let list = read(&visitor, "/").await;
    assert!(list.contains("3 people<span class=\"sep\"> · </span>2 rows skipped"), "{list}");
    let page = read(&visitor, "/campaigns/c1").await;
    assert!(
        page.contains("<dt>People</dt><dd>3</dd>") && page.contains("Completed: 3 of 3 messages"),
        "{page}"
    );
    assert!(page.contains("The audience has 5 rows: 3 people, and 2 skipped rows."), "{page}");
    // The message is that of the first person, not of the first row, which is skipped.
    assert!(page.contains("As +919876500001 sees it<") && page.contains("Hello Asha"), "{page}");

    // What a campaign was cancelled before is not sent, and its people stay people.
    let mut waits = job();
    waits["id"] = "waits".into();
    waits["schedule"] = json!({ "start_at": "2099-01-01T09:00:00Z" });
    visitor.submit(&waits).await;
    visitor.post("/campaigns/waits/do/cancel", &[("confirmed", "yes"), ("expected", "5")]).await;
    // Of another file of that name nobody is shown.
    service.fleet.world.write("audience.csv", rows.replace("Asha", "Usha"));
    let page = read(&visitor, "/campaigns/waits").await;
    assert!(page.contains("Hello {{ name }}") && page.contains("shows the placeholders"), "{page}");
    assert!(page.contains("<dt>Not sent</dt>") && !page.contains("<dt>Still to send</dt>"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_draft_says_what_to_do_and_leads_there() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let draft = begin(&visitor, "phone,name,due\n+919876500001,Asha,2026-12-01 9:30:00\n").await;
    let page = read(&visitor, &format!("{draft}/audience")).await;
    assert!(page.contains("exactly as they’re shown here"), "{page}");
    let page = read(&visitor, &format!("{draft}/check")).await;
    for (field, said) in [
        ("#from", "Enter the sender number."),
        ("#account", "Choose the account."),
        ("", "Write the message."),
    ] {
        assert!(page.contains(&format!("<a href=\"{draft}/message{field}\">{said}</a>")), "{said}: {page}");
    }
    assert!(!page.contains("is required"), "{page}");
    let test = visitor.post(&format!("{draft}/test"), &[("number", "+919876500009")]).await;
    let page = shown(&test.text().await.unwrap());
    assert!(page.contains("The test can’t be sent. ") && !page.contains("is required"), "{page}");

    let message = format!("{draft}/message");
    let long = "x".repeat(5_000);
    let page = shown(&visitor.post(&message, &text("12", &long)).await.text().await.unwrap());
    assert!(page.contains("Too long: 5,000 of 4,096 characters."), "{page}");
    assert!(
        page.contains(
            "Write the number with + and the country code, 7 to 15 digits in all, e.g. +912248931479."
        ),
        "{page}"
    );
    let page = read(&visitor, &format!("{draft}/check")).await;
    assert!(page.contains("Message text: Too long: 5,000 of 4,096 characters."), "{page}");
    // What is seen is in reach: the phone is before the buttons, and the file before what few people need of it.
    let page = read(&visitor, &message).await;
    assert!(page.find("id=\"phones\"") < page.find("Continue to the schedule"), "{page}");
    let page = read(&visitor, "/new").await;
    assert!(page.find("id=\"file\"") < page.find("<summary>Advanced</summary>"), "{page}");
    assert!(page.find("<summary>Advanced</summary>") < page.find("id=\"encoding\""), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_number_that_is_known_is_chosen_and_another_one_typed() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let draft = begin(&visitor, "phone,name\n+919876500001,Asha\n").await;
    let message = format!("{draft}/message");
    let page = read(&visitor, &message).await;
    assert!(!page.contains("known_from") && page.contains("lists it with your WhatsApp account"), "{page}");
    visitor.submit(&job()).await;
    let page = read(&visitor, &message).await;
    assert!(
        page.contains("<option value=\"+912248931479\" selected>")
            && !page.contains("Enter the sender number"),
        "{page}"
    );
    let choose = async |known: &str, typed: &str| {
        let chosen = [&text(typed, "Hello")[..], &[("known_from", known)]].concat();
        visitor.post(&message, &chosen).await
    };
    assert_eq!(choose("+912248931479", "").await.status(), 303);
    assert!(read(&visitor, &format!("{draft}/send")).await.contains("from +912248931479"));
    let refused = choose("", "").await;
    assert_eq!(refused.status(), 422);
    let page = shown(&refused.text().await.unwrap());
    assert!(
        page.contains("Enter the sender number.")
            && page.contains("<option value=\"\" selected>Another number"),
        "{page}"
    );
    assert_eq!(choose("+912248931479", "+91 22 4893 1480").await.status(), 303);
    assert!(read(&visitor, &format!("{draft}/send")).await.contains("from +912248931480"));
    let page = read(&visitor, &message).await;
    assert!(page.contains("value=\"+912248931480\" inputmode"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_names_its_number_and_leads_back_to_its_draft() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let draft = begin(&visitor, "phone,name\n+919876500001,Asha\n").await;
    visitor.post(&format!("{draft}/message"), &text("+912248931479", "Hello {{ name }}")).await;
    let sent = visitor.post(&format!("{draft}/test"), &[("number", "+919876500009")]).await;
    assert_eq!(sent.status(), 303);
    let page = read(&visitor, &format!("{draft}/test")).await;
    assert!(page.contains("</a> to +919876500009:"), "{page}");
    let test = page.split("<a href=\"/campaigns/").nth(1).unwrap().split('"').next().unwrap();
    let address = format!("/campaigns/{test}");
    let page = read(&visitor, &address).await;
    assert!(page.contains("A test, sent to +919876500009."), "{page}");
    assert!(page.contains(&format!("<a href=\"{draft}/test\">Back to the draft</a>")), "{page}");
    assert!(page.contains("Hello Asha"), "{page}");
    // Once the draft is sent, the campaign takes its place.
    let sent = visitor.post(&format!("{draft}/send"), &[("typed", "1")]).await;
    let campaign = sent.headers()[LOCATION].to_str().unwrap().split('?').next().unwrap().to_owned();
    let page = read(&visitor, &address).await;
    assert!(
        page.contains(&format!("<a href=\"{campaign}\">The campaign that was sent after it</a>")),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_of_opt_outs_names_numbers_and_the_audit_log_none() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    for is_embedded in [true, false] {
        let service = Service::start(is_embedded, &provider, TOKENS).await;
        let visitor = Visitor::new(&service, "act-1").await;
        for numbers in ["+919876500001", "+919876500002\n+919876500003"] {
            assert_eq!(visitor.post("/suppressed", &[("numbers", numbers)]).await.status(), 303);
        }
        let history = async || {
            let page = read(&visitor, "/suppressed").await;
            page.split("id=\"history\"").nth(1).unwrap().to_owned()
        };
        let shown = history().await;
        assert!(shown.contains(">+919876500001</td>"), "{shown}");
        assert!(shown.contains("+919876500002") && shown.contains("+919876500003"), "{shown}");
        assert_eq!(visitor.post("/suppressed/remove", &[("number", "+919876500002")]).await.status(), 303);
        let shown = history().await;
        assert!(shown.contains("Removed 1 number"), "{shown}");
        assert!(shown.contains("Numbers removed recently, the latest first: +919876500002."), "{shown}");
        let log = read(&visitor, "/log").await;
        assert!(log.contains("Added 2 numbers") && !log.contains("98765"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_number_without_a_country_code_has_the_country_of_the_audience() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let draft = begin(&visitor, "phone,name\n919876500001,Asha\n").await;
    visitor.post(&format!("{draft}/message"), &text("+442079460018", "Hello {{ name }}")).await;
    let page = read(&visitor, &format!("{draft}/test")).await;
    assert!(page.contains("Without + it’s read as a number of India (+91)."), "{page}");
    for typed in ["9876500009", "919876500009", "098765 00009", "+919876500009"] {
        let sent = visitor.post(&format!("{draft}/test"), &[("number", typed)]).await;
        assert_eq!(sent.status(), 303, "{typed}");
    }
    let page = read(&visitor, &format!("{draft}/test")).await;
    assert_eq!(page.matches("</a> to +919876500009:").count(), 4, "{page}");
    let refused = visitor.post(&format!("{draft}/test"), &[("number", "98765")]).await;
    assert_eq!(refused.status(), 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_in_the_marks_of_another_program_is_warned_about_while_it_is_typed() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let draft = begin(&visitor, "phone,First Name\n+919876500001,Asha\n").await;
    for written in ["<First Name>", "[First Name]", "{First Name}"] {
        let fields = text("+912248931479", written);
        let warning = format!("Message text: {written} is sent literally; write {{{{ First_Name }}}}.");
        let preview = visitor.post(&format!("{draft}/preview"), &fields).await.text().await.unwrap();
        let preview = shown(&preview).replace("&lt;", "<").replace("&gt;", ">");
        assert!(preview.contains(&warning), "{preview}");
        visitor.post(&format!("{draft}/message"), &fields).await;
        let review = read(&visitor, &format!("{draft}/check")).await;
        assert!(review.replace("&lt;", "<").replace("&gt;", ">").contains(&warning), "{review}");
    }
    // The others in the same marks are meant as columns, too.
    let fields = text("+912248931479", "Dear <First Name>, until <date> or <date> [sic] <b");
    let preview = visitor.post(&format!("{draft}/preview"), &fields).await.text().await.unwrap();
    let preview = shown(&preview).replace("&lt;", "<").replace("&gt;", ">");
    assert!(
        preview.contains("<date> is sent literally; the audience has no column of this name."),
        "{preview}"
    );
    assert!(!preview.contains("[sic] is sent"), "{preview}");
    assert_eq!(preview.matches("<date> is sent literally").count(), 1, "{preview}");
    // A name that no column has leads to what can be written.
    let preview = visitor.post(&format!("{draft}/preview"), &text("+912248931479", "{{ FirstName }}")).await;
    let preview = shown(&preview.text().await.unwrap());
    assert!(preview.contains("did you mean \"First_Name\"?"), "{preview}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_keeps_its_message_when_its_name_and_file_change() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let draft = begin(&visitor, "phone,name\n+919876500001,Asha\n").await;
    visitor.post(&format!("{draft}/message"), &text("+912248931479", "Hello {{ name }}")).await;
    let id = draft.trim_start_matches("/new/");
    let page = read(&visitor, &format!("{draft}/audience")).await;
    assert!(page.contains(&format!("<a href=\"/new?draft={id}\">")), "{page}");
    let page = read(&visitor, &format!("/new?draft={id}")).await;
    assert!(page.contains("value=\"Reminder\"") && page.contains("<h1>Name and file</h1>"), "{page}");
    let change = async |file: Option<&str>| {
        let mut form = Form::new().text("draft", id.to_owned()).text("name", "Second reminder");
        if let Some(rows) = file {
            form = form.part("file", Part::bytes(rows.as_bytes().to_vec()).file_name("next.csv"));
        }
        let changed = visitor.request(Method::POST, "/new").multipart(form).send().await.unwrap();
        assert_eq!(changed.headers()[LOCATION].to_str().unwrap(), format!("{draft}/audience"));
        read(&visitor, &format!("{draft}/check")).await
    };
    let page = change(None).await;
    assert!(page.contains("<dd>Second reminder</dd>") && page.contains("Hello Asha"), "{page}");
    let page = change(Some("Mobile,name\n+919876500002,Ravi\n+919876500003,Ila\n")).await;
    assert!(page.contains("<dd>next.csv</dd>") && page.contains("Hello Ravi"), "{page}");
    assert!(page.contains("<strong>2</strong> people"), "{page}");
    // A country that was only assumed from a file is not one of the next file.
    let assumed = begin(&visitor, "phone\n919876500001\n").await;
    let page = read(&visitor, &format!("{assumed}/audience")).await;
    assert!(page.contains("They are read as numbers of India"), "{page}");
    let form =
        Form::new().text("draft", assumed.trim_start_matches("/new/").to_owned()).text("name", "Reminder");
    let form = form.part("file", Part::bytes(b"phone\n+442079460018\n".to_vec()).file_name("uk.csv"));
    visitor.request(Method::POST, "/new").multipart(form).send().await.unwrap();
    let page = read(&visitor, &format!("{assumed}/audience")).await;
    assert!(page.contains("<strong>1</strong> person") && !page.contains("numbers of India"), "{page}");
    let gone = visitor.get("/new?draft=0123").await;
    assert_eq!(gone.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_who_opted_out_are_not_counted_before_sending_either() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    for is_embedded in [true, false] {
        let service = Service::start(is_embedded, &provider, TOKENS).await;
        let visitor = Visitor::new(&service, "act-1").await;
        assert_eq!(visitor.post("/suppressed", &[("numbers", "+919876500002")]).await.status(), 303);
        let draft = begin(&visitor, "phone,name\n+919876500001,Asha\n+919876500002,Ravi\n").await;
        let page = read(&visitor, &format!("{draft}/audience")).await;
        assert!(page.contains("<strong>1</strong> person from 2 rows"), "{page}");
        assert!(page.contains(">Opted out<") && page.contains("<li>3: +919876500002</li>"), "{page}");
        visitor.post(&format!("{draft}/message"), &text("+912248931479", "Hello {{ name }}")).await;
        let page = read(&visitor, &format!("{draft}/send")).await;
        assert!(page.contains("Send to 1 person?"), "{page}");
        let sent = visitor.post(&format!("{draft}/send"), &[("typed", "1")]).await;
        let campaign = sent.headers()[LOCATION].to_str().unwrap().split('?').next().unwrap().to_owned();
        service.until_state(campaign.rsplit('/').next().unwrap(), "completed").await;
        let page = read(&visitor, &campaign).await;
        assert!(page.contains("<dt>People</dt><dd>1</dd>"), "{page}");
        // The check of the API counts like the pages.
        let mut checked = job();
        checked["audience"] = json!({ "recipients": [{ "phone": "+919876500001", "name": "Asha" }, { "phone": "+919876500002", "name": "Ravi" }] });
        let request = service.request(Method::POST, "/campaigns?check=true", "act-1").json(&checked);
        let checked = service.send(request).await;
        assert_eq!(checked.json()["skipped"], json!({ "suppressed": 1 }), "{checked:?}");
        assert_eq!(checked.json()["recipients"], 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_rows_are_shown_as_a_spreadsheet_numbers_them_with_their_values() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let rows = "phone,name\n+919876500001,Asha\n98-<b>,Ravi\n,Ila\n+919876500001,Asha\n";
    let draft = begin(&visitor, rows).await;
    let page = read(&visitor, &format!("{draft}/audience")).await;
    for row in ["<li>3: 98-&lt;b&gt;</li>", "<li>4: empty</li>", "<li>5: +919876500001</li>"] {
        assert!(page.contains(row), "{row}: {page}");
    }
    visitor.post(&format!("{draft}/message"), &text("+912248931479", "Hello {{ name }}")).await;
    let review = read(&visitor, &format!("{draft}/check")).await;
    assert!(review.contains("<li>3: 98-&lt;b&gt;</li>"), "{review}");
    for fact in ["<dd>Reminder</dd>", "<dd>+912248931479 (account main)</dd>", "<dd>people.csv</dd>"] {
        assert!(review.contains(fact), "{fact}: {review}");
    }
    assert!(review.contains("only to people who wrote to you in the last 24 hours"), "{review}");
}
