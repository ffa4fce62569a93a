//! The results of a campaign as files, judged by another language's library for workbooks.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook};
use serde_json::{Value, json};

use crate::service::Service;
use crate::support::job;

/// The library that reads the workbook.
const WANTED: &str = "openpyxl==3.1.5";
const LONG: Duration = Duration::from_mins(1);

/// The cells of a workbook's only sheet, each with its type and its format.
fn sheet(path: &Path) -> Vec<Vec<(String, String, String)>> {
    let tool = Path::new(env!("CARGO_TARGET_TMPDIR")).join(WANTED);
    let bash = "set -euo pipefail\n\
        if [ ! -e \"$TOOL/ready\" ]; then\n\
            rm -rf \"$TOOL\" && python3 -m venv \"$TOOL\" && \"$TOOL/bin/pip\" install --quiet \"$WANTED\" && touch \"$TOOL/ready\"\n\
        fi\n\
        exec \"$TOOL/bin/python\" -c '\n\
import json, openpyxl, sys\n\
book = openpyxl.load_workbook(sys.argv[1])\n\
assert len(book.worksheets) == 1\n\
text = lambda cell: \"\" if cell.value is None else str(cell.value)\n\
print(json.dumps([[[text(cell), cell.data_type, cell.number_format] for cell in row] for row in book.active.rows]))' \"$FILE\"\n";
    let mut read = Command::new("bash");
    read.args(["-c", bash]).env("TOOL", tool).env("WANTED", WANTED).env("FILE", path);
    let read = read.output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    serde_json::from_slice(&read.stdout).unwrap()
}

/// Waits until a campaign is completed and so many people have answered.
async fn ended(service: &Service, id: &str, answers: u64) -> Value {
    let start = Instant::now();
    loop {
        let path = format!("/campaigns/{id}");
        let status = service.send(service.request(Method::GET, &path, "")).await.json();
        if status["state"] == "completed" && status["delivery"]["replied"].as_u64() >= Some(answers) {
            return status;
        }
        assert!(start.elapsed() < LONG, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_results_are_the_rows_of_the_audience_with_what_became_of_them() {
    let service = Service::configured("", &["worker", "--embedded", "--sandbox"]).await;
    let rows: String =
        (0..300).map(|row| format!("{row},+91987654{row:04},\"=1+{row}\",0{row},état\n")).collect();
    let file = format!("No,Mobile Number,formula,code,state\n{rows}300,12345,x,1,y\n");
    let upload =
        |file: &str| service.request(Method::POST, "/audiences?name=people.csv", "").body(file.to_owned());
    assert_eq!(service.send(upload(&file)).await.status, 201);
    let mut job = job();
    job["audience"] = json!({ "csv": { "path": "people.csv" } });
    job["message"] = json!({ "type": "text", "text": { "body": "Hello" } });
    let submitted = service.send(service.request(Method::POST, "/campaigns", "").json(&job)).await;
    assert_eq!(submitted.status, 201, "{submitted:?}");
    ended(&service, "c1", 1).await;
    let file_of = async |path: &str| {
        let answer = service.client.get(format!("{}/campaigns/c1/{path}", service.url)).send().await.unwrap();
        let kind = answer.headers()["content-disposition"].to_str().unwrap().to_owned();
        let name = if path.contains("skipped") { "results-skipped.xlsx" } else { path };
        assert_eq!(kind, format!("attachment; filename=\"c1-{name}\""));
        answer.bytes().await.unwrap()
    };

    // Delivery reports and answers still come: all files are of one moment when nothing has changed between two of them.
    let start = Instant::now();
    let (csv, workbook, answers) = loop {
        let csv = file_of("results.csv").await;
        let workbook = file_of("results.xlsx").await;
        let answers =
            service.send(service.request(Method::GET, "/campaigns/c1/responses.csv", "")).await.text;
        if csv == file_of("results.csv").await {
            break (csv, workbook, answers);
        }
        assert!(start.elapsed() < LONG, "reports do not end");
    };
    let mut csv = csv::Reader::from_reader(&csv[..]);
    let header: Vec<String> = csv.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(header[..7], ["No", "Mobile Number", "formula", "code", "state", "Message state", "Delivery"]);
    assert_eq!(header[7], "Code (2)", "each name is there once: {header:?}");
    let column = |name: &str| header.iter().position(|column| column == name).unwrap();
    let csv: Vec<csv::StringRecord> = csv.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(csv.len(), 301);
    // What the report says of a row stands in the row.
    let report = service.send(service.request(Method::GET, "/campaigns/c1/report.csv", "")).await.text;
    let mut report = csv::Reader::from_reader(report.as_bytes());
    let report: Vec<csv::StringRecord> = report.records().collect::<Result<_, _>>().unwrap();
    for (nth, (row, line)) in csv.iter().zip(&report).enumerate() {
        assert_eq!((&row[0], &line[1]), (&*nth.to_string(), &*(nth + 1).to_string()));
        assert_eq!(row[column("Message state")], line[3]);
        let kept = if nth < 300 { format!("0{nth} état") } else { "1 y".into() };
        assert_eq!(format!("{} {}", &row[3], &row[4]), kept);
    }
    assert_eq!((&csv[5][2], &csv[300][column("Code (2)")]), ("'=1+5", "invalid_number"));
    // Answers stand in the rows of those who gave them.
    let mut answers = csv::Reader::from_reader(answers.as_bytes());
    for answer in answers.records() {
        let answer = answer.unwrap();
        let row: usize = answer[1].parse().unwrap();
        assert!(csv[row - 1][column("Reply")].contains(&answer[4]), "{answer:?}");
    }

    // The workbook holds the same. Numbers and times are what they are, and everything else is a text.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.xlsx");
    std::fs::write(&path, workbook).unwrap();
    let cells = sheet(&path);
    assert_eq!(cells.len(), 302);
    let names: Vec<String> = cells[0].iter().map(|(text, ..)| text.replace(" (UTC)", "")).collect();
    assert_eq!(names, header);
    for (row, record) in cells[1..].iter().zip(&csv) {
        for ((name, (text, kind, _)), value) in names.iter().zip(row).zip(record) {
            let is_text = kind == "s" || kind == "inlineStr";
            match name.as_str() {
                "State since" if !value.is_empty() => {
                    assert_eq!((kind.as_str(), &text[..19]), ("d", value[..19].replace('T', " ").as_str()));
                    continue;
                }
                "No" => assert_eq!(kind, "n"),
                // A needless zero is a part of a code.
                "code" => assert_eq!(is_text, value.starts_with('0'), "{value}"),
                _ => assert!(text.is_empty() || is_text, "{name}: {text} is {kind}"),
            }
            // A CSV has a mark before what a spreadsheet would run; a text in a workbook needs none.
            assert_eq!(text, value.strip_prefix('\'').unwrap_or(value));
        }
    }
    std::fs::write(&path, file_of("results.xlsx?state=skipped").await).unwrap();
    assert_eq!(sheet(&path).len(), 2);

    // More at once than there are threads for work that blocks, half of them given up: the others come, and so does all else.
    let path = format!("{}/campaigns/c1/results.csv", service.url);
    let each = (0..600).map(async |nth| {
        let asked = service.client.get(&path).send();
        if nth % 2 == 0 {
            let _ = tokio::time::timeout(Duration::from_millis(50), asked).await;
            return;
        }
        let text = asked.await.unwrap().text().await.unwrap();
        assert_eq!(text.lines().count(), 302);
    });
    tokio::time::timeout(LONG, futures_util::future::join_all(each)).await.unwrap();
    assert_eq!(service.send(service.request(Method::GET, "/campaigns/c1", "")).await.status, 200);

    // Another file of that name is not what was sent to.
    let root = service.fleet.world.path("");
    let there = walk(&root).into_iter().find(|path| path.ends_with("people.csv"));
    let there = there.unwrap_or_else(|| panic!("no file below {}", root.display()));
    std::fs::write(there, file.replace("état", "pays")).unwrap();
    let refused =
        service.client.get(format!("{}/campaigns/c1/results.csv", service.url)).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("has changed since the campaign was made"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_a_workbook_come_back_as_numbers_and_times_in_the_zone_of_the_header() {
    let service = Service::configured("", &["worker", "--embedded", "--sandbox"]).await;
    let mut workbook = Workbook::new();
    let sheet_of = workbook.add_worksheet();
    for (column, name) in (0..).zip(["Mobile Number", "Amount", "Visits", "Code", "Day"]) {
        sheet_of.write(0, column, name).unwrap();
    }
    let format = |format: &str| Format::new().set_num_format(format);
    sheet_of.write(1, 0, 919_876_540_001.0).unwrap();
    sheet_of.write_with_format(1, 1, 1499.5, &format("#,##0.00")).unwrap();
    sheet_of.write(1, 2, 3).unwrap();
    sheet_of.write(1, 3, "007").unwrap();
    let day = ExcelDateTime::from_ymd(2026, 12, 24).unwrap();
    sheet_of.write_with_format(1, 4, day, &format("dd/mm/yyyy")).unwrap();
    let upload = service.request(Method::POST, "/audiences?name=people.xlsx", "");
    assert_eq!(service.send(upload.body(workbook.save_to_buffer().unwrap())).await.status, 201);
    let mut job = job();
    job["audience"] = json!({ "csv": { "path": "people.xlsx", "default_region": "IN" } });
    job["message"] = json!({ "type": "text", "text": { "body": "Hello" } });
    let submitted = service.send(service.request(Method::POST, "/campaigns", "").json(&job)).await;
    assert_eq!(submitted.status, 201, "{submitted:?}");
    ended(&service, "c1", 0).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.xlsx");
    let read = async |zone: &str| {
        let address = format!("{}/campaigns/c1/results.xlsx{zone}", service.url);
        let bytes = service.client.get(address).send().await.unwrap().bytes().await.unwrap();
        std::fs::write(&path, bytes).unwrap();
        sheet(&path)
    };
    let cells = read("?zone=Asia/Kolkata").await;
    let of = |column: usize| {
        let (text, kind, format) = &cells[1][column];
        (text.as_str(), kind.as_str(), format.as_str())
    };
    assert_eq!((of(0).0, of(0).1), ("919876540001", "s"), "no digit of a phone number is lost");
    assert_eq!(of(1), ("1499.5", "n", "#,##0.00"));
    assert_eq!(of(2), ("3", "n", "0"));
    assert_eq!((of(3).0, of(3).1), ("007", "s"));
    assert_eq!((of(4).0, of(4).1), ("24/12/2026", "s"));
    let at = cells[0].iter().position(|(name, ..)| name == "State since (Asia/Kolkata)").unwrap();
    assert_eq!((of(at).1, of(at).2), ("d", "yyyy-mm-dd hh:mm:ss"));
    // Half past five ahead of UTC. What is no zone is none.
    let time = |cells: &[Vec<(String, String, String)>]| -> jiff::civil::DateTime {
        cells[1][at].0[..19].replace(' ', "T").parse().unwrap()
    };
    let utc = read("?zone=Nowhere").await;
    assert_eq!(utc[0][at].0, "State since (UTC)");
    let apart = time(&cells).since(time(&utc)).unwrap().total(jiff::Unit::Minute).unwrap();
    // A report may have come between the two.
    assert!((329.0..=330.0).contains(&apart), "{apart}");
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
