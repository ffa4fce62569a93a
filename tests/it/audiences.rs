//! Audiences through the commands: what `docs/guide/audiences.md` says, and files of other programs.

use serde_json::{Value, json};

use crate::support::{World, job, job_with};

/// Creates a folder with a configuration.
fn world() -> World {
    let world = World::new(0);
    world.write_config("http://127.0.0.1:9", "");
    world
}

/// Checks a job and returns the result.
fn check(world: &World, job: &Value) -> Value {
    world.write_job(job);
    let found = world.flowcast(&["check", "job.json", "--json"]);
    assert_eq!(found.status, Some(0), "{found:?}");
    serde_json::from_str(&found.out).unwrap()
}

/// Checks a job that must be refused and returns the error.
fn check_refused(world: &World, job: &Value) -> String {
    world.write_job(job);
    let found = world.flowcast(&["check", "job.json"]);
    assert_eq!(found.status, Some(2), "{found:?}");
    found.err
}

fn text_job(body: &str, csv: &Value) -> Value {
    let mut job = job_with("/audience", json!({ "csv": csv }));
    job["message"] = json!({ "type": "text", "text": { "body": body } });
    job
}

fn bodies(checked: &Value) -> Vec<&str> {
    let messages = checked["messages"].as_array().unwrap().iter();
    messages.map(|message| message["content"]["text"]["body"].as_str().unwrap()).collect()
}

#[test]
fn the_examples_of_the_page_on_audiences_run() {
    let world = world();
    let page = include_str!("../../docs/guide/audiences.md");
    let block = page.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_flowcast")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut bash = std::process::Command::new("bash");
    let ran = bash
        .args(["-euo", "pipefail", "-c", block])
        .current_dir(world.path(""))
        .env("PATH", path)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{out}{}", String::from_utf8_lossy(&ran.stderr));
    for part in [
        "numbers     Mobile Number",
        "{{ First_Name }}, {{ Mobile_Number }}",
        "Dear Asha, dear guest, you owe 1,499.50.",
        "Dear Ravi, you owe 20.",
        "row 3: duplicate",
        "row 4: invalid_number: the cell contains more than one number",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
}

#[test]
fn a_libreoffice_cell_prints_as_shown_and_computes_as_a_number() {
    let world = world();
    let book = include_bytes!("../fixtures/workbooks/libreoffice.xlsx");
    world.write("book.xlsx", book);
    let found = world.flowcast(&["check", "job.json", "--json"]);
    assert_eq!(found.status, Some(2));
    // Only one cell of the column `value` is a phone number; this test is about the values.
    let error = check_refused(&world, &text_job("{{ what }}", &json!({ "path": "book.xlsx" })));
    assert!(error.contains("found no phone column among"), "{error}");
    let csv = json!({ "path": "book.xlsx", "phone": "value", "default_region": "IN" });
    let found = check(&world, &text_job("{{ what }} {{ value }} {{ value | int }}", &csv));
    assert_eq!(bodies(&found), ["phone 919876543210 919876543210"]);
    let notes = found["notes"].to_string();
    assert!(notes.contains("2 rows of the sheet are hidden, e.g. by a filter, and are sent too"), "{notes}");
}

#[test]
fn numbers_print_as_written_and_compute_as_numbers() {
    let mut job = job();
    job["audience"] = json!({ "recipients": [{ "phone": "+919876543210" }] });
    job["message"] = json!({ "type": "text", "text": { "body":
        "{{ sum }} {% if sum > 1000 %}much{% else %}little{% endif %} {{ (sum | float * 2) | int }} {{ sum | int }}" } });
    let world = world();
    // Written by hand, because a JSON library would change 1499.00.
    let text =
        job.to_string().replace(r#""phone":"+919876543210""#, r#""phone":"+919876543210","sum":1499.00"#);
    world.write("job.json", text);
    let found = world.flowcast(&["check", "job.json", "--json"]);
    let found: Value = serde_json::from_str(&found.out).unwrap_or_else(|_| panic!("{found:?}"));
    assert_eq!(bodies(&found), ["1499.00 much 2998 1499"]);
}

#[test]
fn mistyped_placeholders_are_reported_with_the_right_form() {
    let world = world();
    world.write(
        "people.csv",
        "phone,First Name,row,\u{928}\u{93e}\u{92e}\n+919876543210,Asha,7,\u{906}\u{936}\u{93e}\n",
    );
    let csv = || json!({ "path": "people.csv" });
    for (body, part) in [
        ("Dear {{ First Name }}", "use {{ First_Name }}"),
        ("Dear {{ first name | title }}", "use {{ first_name | title }}"),
        ("Dear {{1}}", "{{1}} is a placeholder of WhatsApp Manager"),
        ("Row {{ row }}", "is both a column of the audience and a built-in value; rename the column"),
    ] {
        let error = check_refused(&world, &text_job(body, &csv()));
        assert!(error.contains(part), "{body}: {error}");
    }
    let found = check(
        &world,
        &text_job("{{ First_Name }} {{ first_name | upper }} {{ \u{928}\u{93e}\u{92e} }}", &csv()),
    );
    assert_eq!(bodies(&found), ["Asha ASHA \u{906}\u{936}\u{93e}"]);
    let identifiers: Vec<&str> = found["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["identifier"].as_str().unwrap())
        .collect();
    assert_eq!(identifiers, ["phone", "First_Name", "row", "\u{928}\u{93e}\u{92e}"]);
    for written in ["{First Name}", "[First Name]", "[[First Name]]", "%First Name%", "<first_name>"] {
        let found = check(&world, &text_job(written, &csv()));
        let warnings = found["warnings"].to_string();
        assert!(warnings.contains("is sent literally; write {{ First_Name }}"), "{written}: {warnings}");
    }
    for fine in ["{other}", "100 % of <b>", "{{ First_Name }}"] {
        assert_eq!(check(&world, &text_job(fine, &csv()))["warnings"], json!([]), "{fine}");
    }
}

#[test]
fn values_that_are_probably_mistakes_are_counted() {
    let world = world();
    world.write(
        "people.csv",
        "phone,name,vip\n+919876543210,NULL,FALSE\n+919876543211,#N/A,yes\n+919876543212,Asha,no\n",
    );
    let csv = || json!({ "path": "people.csv" });
    let found = check(&world, &text_job("{% if vip %}VIP {% endif %}{{ name }}", &csv()));
    let warnings = found["warnings"].to_string();
    assert!(warnings.contains("2 values of the column \\\"name\\\" are NULL, #N/A or similar"), "{warnings}");
    assert!(warnings.contains("write {% if vip | bool %}"), "{warnings}");
    let found = check(&world, &text_job("{% if vip | bool %}VIP {% endif %}.", &csv()));
    assert_eq!((bodies(&found), &found["warnings"]), (vec![".", "VIP .", "."], &json!([])));
}

#[test]
fn a_check_suggests_how_to_read_invalid_numbers() {
    let world = world();
    let rows: String = (0..25)
        .map(|row| if row < 22 { format!("98765432{row:02},a\n") } else { format!("{row},a\n") })
        .collect();
    world.write("people.csv", format!("phone,name\n{rows}"));
    let found = check(&world, &text_job("x", &json!({ "path": "people.csv" })));
    let notes = found["notes"].to_string();
    assert!(
        notes.contains("22 of 25 invalid phone numbers would be valid with default_region IN"),
        "{notes}"
    );
    assert_eq!(found["suggested_region"], "IN");
    // A region is not suggested if it makes one more number valid and all others invalid.
    world.write("people.csv", format!("phone,name\n{}12345,b\n", &rows[..22 * 13]));
    let found = check(&world, &text_job("x", &json!({ "path": "people.csv", "default_region": "IN" })));
    assert_eq!((&found["recipients"], &found["suggested_region"]), (&json!(22), &Value::Null), "{found}");
    world.write("people.csv", "phone,mobile\n+912248931479,+919876543210\n");
    let found = check(&world, &text_job("x", &json!({ "path": "people.csv" })));
    let notes = found["notes"].to_string();
    assert!(
        notes.contains("the phone numbers are read from the column \\\"phone\\\", not from mobile"),
        "{notes}"
    );
}

#[test]
fn template_parameters_are_on_one_line() {
    let world = world();
    world.write(
        "people.csv",
        "phone,name\n+919876543210,\"Asha\nRao\"\n+919876543211,Ravi\n+919876543212,\"a     b\"\n",
    );
    let template = |text: &str, whitespace: Option<&str>| {
        let mut job = job_with("/audience", json!({ "csv": { "path": "people.csv" } }));
        job["message"] = json!({ "type": "template", "template": { "name": "offer", "language": { "code": "en" },
            "components": [{ "type": "body", "parameters": [{ "type": "text", "text": text }] }] } });
        if let Some(whitespace) = whitespace {
            job["whitespace"] = whitespace.into();
        }
        job
    };
    let sent = |checked: &Value| -> Vec<String> {
        let pointer = "/content/template/components/0/parameters/0/text";
        let messages = checked["messages"].as_array().unwrap().iter();
        messages.map(|message| message.pointer(pointer).unwrap().as_str().unwrap().to_owned()).collect()
    };
    let found = check(&world, &template("Dear {{ name }}", None));
    assert_eq!(
        (sent(&found), &found["skipped"]),
        (vec!["Dear Ravi".to_owned()], &json!({ "invalid_content": 2 }))
    );
    let found = check(&world, &template("Dear {{ name }}", Some("join")));
    assert_eq!(sent(&found), ["Dear Asha Rao", "Dear Ravi", "Dear a b"]);
    let error = check_refused(&world, &template("Dear\ncustomer", None));
    assert!(error.contains("which Meta rejects in a parameter"), "{error}");
    assert_eq!(sent(&check(&world, &template("Dear\ncustomer", Some("join"))))[0], "Dear customer");
}
