//! The steps to a new campaign and the opt-out list, as forms: what people type, upload and choose.

use flowcast::sandbox::Behaviour;
use reqwest::Method;
use reqwest::header::LOCATION;
use reqwest::multipart::{Form, Part};
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook};

use crate::dashboard::Visitor;
use crate::service::{Service, TOKENS};
use crate::support::{Reaction, Scripted, job, sandbox};

/// Uploads an audience as the first page does, and returns the address of the draft's first step.
async fn begin(visitor: &Visitor<'_>, file: &str, bytes: Vec<u8>) -> String {
    let part = Part::bytes(bytes).file_name(file.to_owned());
    let form = Form::new().text("name", "Reminder").part("file", part);
    let begun = visitor.request(Method::POST, "/new").multipart(form).send().await.unwrap();
    assert_eq!(begun.status(), 303, "{}", begun.text().await.unwrap());
    begun.headers()[LOCATION].to_str().unwrap().to_owned()
}

/// A page as its reader sees it.
fn read(page: &str) -> String {
    page.replace("&#x2f;", "/").replace("&#x27;", "'").replace("&quot;", "\"")
}

/// A customer list as a spreadsheet program saves it: numbers, a date and an amount in cells of their own kinds.
fn workbook(rows: u32) -> Vec<u8> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    for (column, name) in (0..).zip(["First Name", "Mobile Number", "Visit", "Amount"]) {
        sheet.write(0, column, name).unwrap();
    }
    let (date, amount) =
        (Format::new().set_num_format("dd/mm/yyyy"), Format::new().set_num_format("#,##0.00"));
    for row in 1..=rows {
        sheet.write(row, 0, format!("Asha {row}")).unwrap();
        sheet.write(row, 1, 919_876_540_000.0 + f64::from(row)).unwrap();
        sheet.write_with_format(row, 2, ExcelDateTime::from_ymd(2026, 12, 24).unwrap(), &date).unwrap();
        sheet.write_with_format(row, 3, 1499.5, &amount).unwrap();
    }
    workbook.save_to_buffer().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workbook_goes_from_the_upload_to_the_preview_at_the_first_try() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let step = begin(&visitor, "clinic.xlsx", workbook(25)).await;
    let (_, page) = visitor.get(&step).await;
    assert!(page.contains("<strong>25</strong> people") && !page.contains("There is a problem"), "{page}");
    // What could be misread is shown: the country, each number as it is used, the date and the amount as the sheet has them.
    for shown in
        ["They are read as numbers of India", "(Mobile Number)", "+919876540001", "24/12/2026", "1,499.50"]
    {
        assert!(read(&page).contains(shown), "{shown}: {page}");
    }
    let next = visitor.post(&step, &[("phone", ""), ("region", "IN"), ("do", "next")]).await;
    assert_eq!(next.headers()[LOCATION].to_str().unwrap(), step.replace("/audience", "/message"));
    let typed = [
        ("kind", "text"),
        ("form_kind", "text"),
        ("/message/type", "text"),
        ("/message/text/body", "Dear {{ First_Name }}, {{ Visit }}: INR {{ Amount }}"),
    ];
    let preview = visitor.post(&step.replace("/audience", "/preview"), &typed).await.text().await.unwrap();
    assert!(read(&preview).contains("Dear Asha 1, 24/12/2026: INR 1,499.50"), "{preview}");
    // What is missing is said beside it.
    assert!(preview.contains("Enter the sender number.") && !preview.contains("message text"), "{preview}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_half_written_is_shown_as_far_as_it_is() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let step = begin(&visitor, "people.csv", b"phone,First Name\n+919876500001,Asha\n".to_vec()).await;
    let address = step.replace("/audience", "/preview");
    let flow = |more: &[(&'static str, &'static str)]| {
        [
            ("kind", "flow"),
            ("form_kind", "flow"),
            ("/message/type", "interactive"),
            ("/message/interactive/type", "flow"),
            ("/message/interactive/action/name", "flow"),
            ("/message/interactive/action/parameters/flow_message_version", "3"),
            ("/message/interactive/action/parameters/flow_token", "{{ message_ref }}"),
            ("/message/interactive/action/parameters/flow_action", "navigate"),
        ]
        .iter()
        .chain(more)
        .copied()
        .collect::<Vec<_>>()
    };
    let preview = async |fields: &[(&str, &str)]| visitor.post(&address, fields).await.text().await.unwrap();
    let body = ("/message/interactive/body/text", "Dear {{ First_Name }}");
    let half = preview(&flow(&[body])).await;
    assert!(half.contains("Dear Asha") && half.contains("Enter the button text."), "{half}");
    assert!(half.contains("Enter the flow ID."), "{half}");
    let wrong = preview(&flow(&[("/message/interactive/body/text", "Dear {{ Frist_Name }}")])).await;
    assert!(wrong.contains("no column") && wrong.contains("Enter the flow ID."), "{wrong}");
    // The page asks for what a marketer knows; the rest has a default.
    let (_, page) = visitor.get(&step.replace("/audience", "/message")).await;
    assert!(page.contains("A plain message."), "{page}");
    let chosen = visitor
        .post(&step.replace("/audience", "/message"), &[("kind", "flow_template"), ("do", "update")])
        .await;
    let page = read(&chosen.text().await.unwrap());
    for shown in ["Template name", "Body variables", "Variable 1", "A message that WhatsApp has approved"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let token = page.split("parameters/0/action/flow_token\" name").nth(1).unwrap();
    assert!(token.split('>').next().unwrap().contains("{{ message_ref }}"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_without_a_country_code_get_the_country_that_a_person_chooses() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let rows: String = (0..25).map(|row| format!("98765400{row:02},Asha\n")).collect();
    let step = begin(&visitor, "clinic.csv", format!("Contact No.,name\n{rows}").into_bytes()).await;
    let (_, page) = visitor.get(&step).await;
    assert!(page.contains("None of the 25 rows has a valid number"), "{page}");
    // Of several countries that would do, flowcast chooses none.
    assert!(page.contains("25 of 25 unreadable numbers would be valid in"), "{page}");
    let germany = visitor.post(&step, &[("region", "Germany")]).await;
    assert_eq!(germany.status(), 422);
    assert!(germany.text().await.unwrap().contains("Choose a country from the list."));
    let india = visitor.post(&step, &[("use", "IN")]).await;
    let page = india.text().await.unwrap();
    assert!(page.contains("<strong>25</strong> people") && page.contains("+919876540000"), "{page}");
    assert!(page.contains("<option value=\"IN\" selected>India (+91)</option>"), "{page}");

    // Where a campaign was sent before, its sender's country is the default.
    visitor.submit(&job()).await;
    let step = begin(&visitor, "again.csv", format!("mobile no,name\n{rows}").into_bytes()).await;
    let (_, page) = visitor.get(&step).await;
    assert!(page.contains("<strong>25</strong> people"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opt_outs_are_imported_and_every_row_is_accounted_for() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let import = async |file: &str, bytes: &[u8], more: &[(&'static str, &'static str)]| {
        let mut form = Form::new();
        for (name, value) in more {
            form = form.text(*name, *value);
        }
        let form = form.part("file", Part::bytes(bytes.to_vec()).file_name(file.to_owned()));
        let answer =
            visitor.request(Method::POST, "/suppressed/import").multipart(form).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, page) = import("stop.csv", b"phone\n+919876500001\n12\nnobody\n+919876500001\n", &[]).await;
    assert_eq!(status, 200);
    let sentence = "stop.csv: 1 number added, 1 row with a number of an earlier row, 2 rows couldn’t be read (rows 2, 3).";
    assert!(page.contains(sentence), "{page}");
    let page = read(&page);
    let download = page.split("data:text/csv;charset=utf-8,").nth(1).unwrap().split('"').next().unwrap();
    let form = format!("csv={download}");
    let csv = url::form_urlencoded::parse(form.as_bytes()).next().unwrap().1;
    assert!(csv.starts_with("row,text,reason\n2,12,") && csv.contains("\n3,nobody,"), "{csv}");
    let (_, page) = import("again.csv", b"phone\n98765 00001\n98765 00002\n", &[("region", "IN")]).await;
    assert!(page.contains("again.csv: 1 number added, 1 already on the list."), "{page}");
    // What a spreadsheet would run is a text in the file of what could not be read.
    let (_, page) = import("run.csv", b"phone\n+919876500001\n=1+1\n", &[]).await;
    assert!(read(&page).contains("%0A2%2C%27%3D1%2B1%2C"), "{page}");
    // A column is chosen where none is found, by a list of those that are there.
    let odd = b"reach at,name\n+919876500003,Asha\n";
    let (status, page) = import("odd.csv", odd, &[]).await;
    assert!(status == 422 && page.contains("<option>reach at</option>"), "{page}");
    let (status, page) = import("odd.csv", odd, &[("phone", "reach at")]).await;
    assert!(status == 200 && page.contains("odd.csv: 1 number added."), "{page}");
    for (file, bytes) in [
        ("cat.png", &b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..]),
        ("empty.csv", b""),
        ("none.csv", b"phone\nx\ny\n"),
    ] {
        let (status, page) = import(file, bytes, &[]).await;
        assert!(status == 422 && page.contains("There is a problem"), "{file}: {page}");
    }
    let (status, _) = import("stop.csv", b"phone\n+919876500009\n", &[("region", "Germany")]).await;
    assert_eq!(status, 422);
    assert_eq!(service.get("/suppressed").await.json()["items"].as_array().unwrap().len(), 3);

    // Any part of a number finds it; a removal can be undone.
    let (_, page) = visitor.get("/suppressed?q=500002").await;
    assert!(page.contains("+919876500002") && !page.contains("+919876500003"), "{page}");
    let row = page.split("data-label=\"Added\">").nth(1).unwrap();
    assert!(row.starts_with("<time ") && row.contains("data-label=\"By\">marketing</td>"), "{row}");
    let removed = visitor.post("/suppressed/remove", &[("number", "+919876500002")]).await;
    let (_, page) = visitor.get(removed.headers()[LOCATION].to_str().unwrap()).await;
    assert!(page.contains("+919876500002 is no longer on the list.") && page.contains("Undo"), "{page}");
    assert_eq!(visitor.post("/suppressed", &[("numbers", "+919876500002")]).await.status(), 303);
    let (_, page) = visitor.get("/suppressed?removed=919876500002").await;
    assert!(!page.contains("is no longer on the list"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_is_shown_as_it_will_be_and_what_can_not_be_is_said() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let step = begin(&visitor, "people.csv", b"phone,name\n+919876500001,Asha\n".to_vec()).await;
    let at = |step_name: &str| step.replace("/audience", step_name);
    // Before there is a message, sending leads to what is missing.
    for answer in [
        visitor.request(Method::GET, &at("/send")).send().await.unwrap(),
        visitor.post(&at("/send"), &[("typed", "1")]).await,
    ] {
        assert_eq!(
            (answer.status().as_u16(), answer.headers()[LOCATION].to_str().unwrap()),
            (303, &*at("/check"))
        );
    }
    let (_, page) = visitor.get(&at("/check")).await;
    assert!(page.contains(&format!("href=\"{}\"", at("/message"))), "{page}");
    let message = [
        ("account", "main"),
        ("from", "+912248931479"),
        ("kind", "text"),
        ("form_kind", "text"),
        ("/message/type", "text"),
        ("/message/text/body", "Dear {{ name }}"),
        ("do", "next"),
    ];
    assert_eq!(visitor.post(&at("/message"), &message).await.status(), 303);

    let days: Vec<(&str, &str)> =
        ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].map(|day| ("days", day)).to_vec();
    let save = async |more: &[(&'static str, &'static str)], days: &[(&'static str, &'static str)]| {
        let fields: Vec<_> = [("zone", "Asia/Kolkata")].iter().chain(more).chain(days).copied().collect();
        let answer = visitor.post(&at("/when"), &fields).await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for (more, days, said) in [
        (
            &[("start_at", "2020-01-01T09:00")][..],
            &days[..],
            "This time has passed. Leave the start empty to send now.",
        ),
        (&[("expires_at", "2020-01-01T09:00")], &days, "This time has passed."),
        (
            &[("start_at", "2099-01-02T09:00"), ("expires_at", "2099-01-01T09:00")],
            &days,
            "The end must be after the start.",
        ),
        (&[("from", "09:00"), ("to", "18:00")], &[], "Choose at least one day."),
        (&[("from", "09:00")], &days, "Enter both times of the sending hours"),
        (&[], &days[..2], "Enter both times of the sending hours"),
        (&[("limit", "many")], &days, "Enter a number, for example 80."),
        (&[("stop", "much")], &days, "Enter a percentage from 1 to 100."),
    ] {
        let (status, page) = save(more, days).await;
        assert!(status == 422 && page.contains(said), "{more:?}: {page}");
        // Each error once beside its field, and once in the summary.
        assert_eq!(page.matches(said).count(), 2, "{more:?}: {page}");
    }
    // The next opening of a window that is shut now; the year is there where it is not this one.
    let now = jiff::Timestamp::now().in_tz("Asia/Kolkata").unwrap();
    let tomorrow = now.checked_add(jiff::Span::new().days(1)).unwrap();
    let day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        [usize::try_from(tomorrow.weekday().to_monday_zero_offset()).unwrap()];
    assert_eq!(save(&[("from", "09:00"), ("to", "18:00")], &[("days", day)]).await.0, 303);
    let (_, page) = visitor.get(&at("/check")).await;
    let opens = tomorrow.strftime("%A %-d %B").to_string();
    assert!(
        page.contains(&opens) && page.contains("09:00 IST</time>, when the sending hours begin"),
        "{page}"
    );
    assert_eq!(save(&[("start_at", "2099-01-01T09:00")], &days).await.0, 303);
    for step_name in ["/check", "/send"] {
        let (_, page) = visitor.get(&at(step_name)).await;
        assert!(page.contains("Thursday 1 January 2099, 09:00 IST"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_done_is_not_said_to_be_done() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    visitor.submit(&job()).await;
    service.until_state("c1", "completed").await;
    let fields = [("confirmed", "yes"), ("expected", "0"), ("older_than", "10h")];
    let answer = visitor.post("/campaigns/c1/do/give-up", &fields).await;
    assert_eq!(answer.status(), 422);
    let page = answer.text().await.unwrap();
    assert!(page.contains("Nothing to do: no message has been in doubt for 10h or more."), "{page}");
    let fields = [("confirmed", "yes"), ("expected", "0"), ("older_than", "soon")];
    let page = visitor.post("/campaigns/c1/do/give-up", &fields).await.text().await.unwrap();
    assert!(page.contains("Enter a time such as 30min or 2h."), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audience_is_deleted_when_nothing_needs_it_any_more() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let step = begin(&visitor, "people.csv", b"phone,First Name\n+919876500001,Asha\n".to_vec()).await;
    let (_, page) = visitor.get("/audiences").await;
    for shown in ["people.csv", "phone, First Name", "class=\"hint\">marketing", "1 draft", "In use"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let delete = async || visitor.post("/audiences/delete", &[("path", "people.csv")]).await;
    assert_eq!(delete().await.status(), 409);
    assert_eq!(visitor.post(&step.replace("/audience", "/remove"), &[]).await.status(), 303);
    // A campaign that waits for its start has not read all of it.
    let mut waits = job();
    waits["id"] = "waits".into();
    waits["audience"] = serde_json::json!({ "csv": { "path": "people.csv" } });
    waits["message"]["text"]["body"] = "Dear {{ First_Name }}".into();
    waits["schedule"] = serde_json::json!({ "start_at": "2099-01-01T09:00:00Z" });
    visitor.submit(&waits).await;
    assert_eq!(delete().await.status(), 409);
    assert_eq!(visitor.post("/campaigns/waits/do/cancel", &[("confirmed", "yes")]).await.status(), 303);
    let (_, page) = visitor.get("/audiences?delete=people.csv").await;
    assert!(page.contains("Delete people.csv?") && page.contains("/campaigns/waits\">"), "{page}");
    let deleted = delete().await;
    let (_, page) = visitor.get(deleted.headers()[LOCATION].to_str().unwrap()).await;
    assert!(
        page.contains("Deleted people.csv.")
            && page.contains("No audiences yet") | page.contains("audience.csv"),
        "{page}"
    );
    assert_eq!(delete().await.status(), 404);
    for path in ["../flowcast.toml", "/etc/passwd", "flowcast.toml", ""] {
        assert_eq!(visitor.post("/audiences/delete", &[("path", path)]).await.status(), 422, "{path}");
    }
    // What is no audience is refused by its name.
    let part = Part::bytes(b"\x89PNG".to_vec()).file_name("cat.png");
    let form = Form::new().text("name", "Cats").part("file", part);
    let refused = visitor.request(Method::POST, "/new").multipart(form).send().await.unwrap();
    assert!(refused.text().await.unwrap().contains("cat.png isn’t a .csv or .xlsx file."));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_is_duplicated_into_a_draft_without_its_times() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let mut first = job();
    first["name"] = "Diwali".into();
    first["limits"] = serde_json::json!({ "messages": "50/s" });
    first["schedule"] = serde_json::json!({ "start_at": "2099-01-01T09:00:00Z" });
    visitor.submit(&first).await;
    let (_, page) = visitor.get("/campaigns/c1").await;
    assert!(page.contains("<button class=\"second\">Duplicate</button>"), "{page}");
    let begun = visitor.post("/campaigns/c1/duplicate", &[]).await;
    let step = begun.headers()[LOCATION].to_str().unwrap().to_owned();
    let (_, page) = visitor.get(&step.replace("/audience", "/check")).await;
    assert!(page.contains("as soon as you send it") && read(&page).contains("at 50/s"), "{page}");
    let (_, page) = visitor.get("/new").await;
    assert!(page.contains("Copy of Diwali"), "{page}");
    // One whose people are in the job itself has no file to begin with.
    first["id"] = "c2".into();
    first["audience"] = serde_json::json!({ "recipients": [{ "phone": "+919876500001", "name": "Asha" }] });
    visitor.submit(&first).await;
    let (_, page) = visitor.get("/campaigns/c2").await;
    assert!(!page.contains("Duplicate</button>"), "{page}");
    assert_eq!(visitor.post("/campaigns/c2/duplicate", &[]).await.status(), 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_on_hold_says_what_holds_it_and_since_when() {
    let provider = Scripted::start(|_, _| Reaction::Answer(402, "", String::new())).await;
    let service = Service::start(true, &provider.url, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    visitor.submit(&job()).await;
    service.until_state("c1", "held").await;
    let (_, page) = visitor.get("/campaigns/c1").await;
    for shown in [
        "On hold, account main: HTTP 402",
        "On hold since <time",
        "works again: next <time",
        ">Resume</button>",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains(">Pause</button>"), "{page}");
    // The form for a message says so before anything is sent.
    let step = begin(&visitor, "people.csv", b"phone,name\n+919876500001,Asha\n".to_vec()).await;
    let (_, page) = visitor.get(&step.replace("/audience", "/message")).await;
    assert!(page.contains("main (on hold)") && page.contains("main is on hold since"), "{page}");
}
