//! The results of a campaign as files; a Python library reads the workbooks.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook};
use serde_json::{Value, json};

use crate::service::Service;
use crate::support::job;
use crate::tools;

const LONG: Duration = Duration::from_mins(1);

/// Returns the cells of a workbook's only sheet, each with its type and its format.
fn sheet(path: &Path) -> Vec<Vec<(String, String, String)>> {
    let script = "import json, openpyxl, sys\n\
book = openpyxl.load_workbook(sys.argv[1])\n\
assert len(book.worksheets) == 1\n\
text = lambda cell: \"\" if cell.value is None else str(cell.value)\n\
print(json.dumps([[[text(cell), cell.data_type, cell.number_format] for cell in row] for row in book.active.rows]))";
    let python = tools::python("openpyxl", "openpyxl==3.1.5").join("bin/python");
    let cells = tools::run(Command::new(python).args(["-c", script]).arg(path));
    serde_json::from_str(&cells).unwrap()
}

/// Waits until a campaign is completed and at least `replies` recipients have replied.
async fn until_completed(service: &Service, id: &str, replies: u64) -> Value {
    let start = Instant::now();
    loop {
        let path = format!("/campaigns/{id}");
        let status = service.send(service.request(Method::GET, &path, "")).await.json();
        if status["state"] == "completed" && status["delivery"]["replied"].as_u64() >= Some(replies) {
            return status;
        }
        assert!(start.elapsed() < LONG, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_the_rows_of_the_audience_with_their_outcomes() {
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
    until_completed(&service, "c1", 1).await;
    let file_of = async |path: &str| {
        let response =
            service.client.get(format!("{}/campaigns/c1/{path}", service.url)).send().await.unwrap();
        let disposition = response.headers()["content-disposition"].to_str().unwrap().to_owned();
        let name = if path.contains("skipped") { "results-skipped.xlsx" } else { path };
        assert_eq!(disposition, format!("attachment; filename=\"c1-{name}\""));
        response.bytes().await.unwrap()
    };

    // Delivery reports and replies still arrive: the files are consistent if the CSV file is the same before and after.
    let start = Instant::now();
    let (csv, workbook, replies) = loop {
        let csv = file_of("results.csv").await;
        let workbook = file_of("results.xlsx").await;
        let replies =
            service.send(service.request(Method::GET, "/campaigns/c1/responses.csv", "")).await.text;
        if csv == file_of("results.csv").await {
            break (csv, workbook, replies);
        }
        assert!(start.elapsed() < LONG, "the reports must end");
    };
    let mut csv = csv::Reader::from_reader(&csv[..]);
    let header: Vec<String> = csv.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(header[..7], ["No", "Mobile Number", "formula", "code", "state", "Message state", "Delivery"]);
    assert_eq!(header[7], "Code (2)", "column names must be unique: {header:?}");
    let column = |name: &str| header.iter().position(|column| column == name).unwrap();
    let csv: Vec<csv::StringRecord> = csv.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(csv.len(), 301);
    // The row has the state that the report has.
    let report = service.send(service.request(Method::GET, "/campaigns/c1/report.csv", "")).await.text;
    let mut report = csv::Reader::from_reader(report.as_bytes());
    let report: Vec<csv::StringRecord> = report.records().collect::<Result<_, _>>().unwrap();
    for (nth, (row, line)) in csv.iter().zip(&report).enumerate() {
        assert_eq!((&row[0], &line[1]), (&*nth.to_string(), &*(nth + 1).to_string()));
        assert_eq!(row[column("Message state")], line[3]);
        let expected = if nth < 300 { format!("0{nth} état") } else { "1 y".into() };
        assert_eq!(format!("{} {}", &row[3], &row[4]), expected);
    }
    assert_eq!((&csv[5][2], &csv[300][column("Code (2)")]), ("'=1+5", "invalid_number"));
    // Replies are in the rows of their recipients.
    let mut replies = csv::Reader::from_reader(replies.as_bytes());
    for reply in replies.records() {
        let reply = reply.unwrap();
        let row: usize = reply[1].parse().unwrap();
        assert!(csv[row - 1][column("Reply")].contains(&reply[4]), "{reply:?}");
    }

    // The workbook has the same values. Numbers and times have their types, and everything else is text.
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
                // A leading zero is part of a code.
                "code" => assert_eq!(is_text, value.starts_with('0'), "{value}"),
                _ => assert!(text.is_empty() || is_text, "{name}: {text} is {kind}"),
            }
            // In CSV an apostrophe precedes a formula; text in a workbook needs none.
            assert_eq!(text, value.strip_prefix('\'').unwrap_or(value));
        }
    }
    std::fs::write(&path, file_of("results.xlsx?state=skipped").await).unwrap();
    assert_eq!(sheet(&path).len(), 2);

    // More requests at once than blocking threads, half of them aborted: the others and other endpoints get their responses.
    let path = format!("{}/campaigns/c1/results.csv", service.url);
    let each = (0..600).map(async |nth| {
        let request = service.client.get(&path).send();
        if nth % 2 == 0 {
            let _ = tokio::time::timeout(Duration::from_millis(50), request).await;
            return;
        }
        let text = request.await.unwrap().text().await.unwrap();
        assert_eq!(text.lines().count(), 302);
    });
    tokio::time::timeout(LONG, futures_util::future::join_all(each)).await.unwrap();
    assert_eq!(service.send(service.request(Method::GET, "/campaigns/c1", "")).await.status, 200);

    // A changed file is not the audience of the campaign.
    let root = service.fleet.world.path("");
    let stored = walk(&root).into_iter().find(|path| path.ends_with("people.csv"));
    let stored = stored.unwrap_or_else(|| panic!("no file below {}", root.display()));
    std::fs::write(stored, file.replace("état", "pays")).unwrap();
    let refused =
        service.client.get(format!("{}/campaigns/c1/results.csv", service.url)).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("has changed since the campaign was made"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_keep_numbers_and_show_times_in_the_zone_of_the_header() {
    let service = Service::configured("", &["worker", "--embedded", "--sandbox"]).await;
    let mut workbook = Workbook::new();
    let worksheet = workbook.add_worksheet();
    for (column, name) in (0..).zip(["Mobile Number", "Amount", "Visits", "Code", "Day"]) {
        worksheet.write(0, column, name).unwrap();
    }
    let format = |format: &str| Format::new().set_num_format(format);
    worksheet.write(1, 0, 919_876_540_001.0).unwrap();
    worksheet.write_with_format(1, 1, 1499.5, &format("#,##0.00")).unwrap();
    worksheet.write(1, 2, 3).unwrap();
    worksheet.write(1, 3, "007").unwrap();
    let day = ExcelDateTime::from_ymd(2026, 12, 24).unwrap();
    worksheet.write_with_format(1, 4, day, &format("dd/mm/yyyy")).unwrap();
    let upload = service.request(Method::POST, "/audiences?name=people.xlsx", "");
    assert_eq!(service.send(upload.body(workbook.save_to_buffer().unwrap())).await.status, 201);
    let mut job = job();
    job["audience"] = json!({ "csv": { "path": "people.xlsx", "default_region": "IN" } });
    job["message"] = json!({ "type": "text", "text": { "body": "Hello" } });
    let submitted = service.send(service.request(Method::POST, "/campaigns", "").json(&job)).await;
    assert_eq!(submitted.status, 201, "{submitted:?}");
    until_completed(&service, "c1", 0).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.xlsx");
    let read = async |zone: &str| {
        let address = format!("{}/campaigns/c1/results.xlsx{zone}", service.url);
        let bytes = service.client.get(address).send().await.unwrap().bytes().await.unwrap();
        std::fs::write(&path, bytes).unwrap();
        sheet(&path)
    };
    let cells = read("?zone=Asia/Kolkata").await;
    let cell = |column: usize| {
        let (text, kind, format) = &cells[1][column];
        (text.as_str(), kind.as_str(), format.as_str())
    };
    assert_eq!((cell(0).0, cell(0).1), ("919876540001", "s"), "a phone number must keep all digits");
    assert_eq!(cell(1), ("1499.5", "n", "#,##0.00"));
    assert_eq!(cell(2), ("3", "n", "0"));
    assert_eq!((cell(3).0, cell(3).1), ("007", "s"));
    assert_eq!((cell(4).0, cell(4).1), ("24/12/2026", "s"));
    let at = cells[0].iter().position(|(name, ..)| name == "State since (Asia/Kolkata)").unwrap();
    assert_eq!((cell(at).1, cell(at).2), ("d", "yyyy-mm-dd hh:mm:ss"));
    // The zone is five and a half hours ahead of UTC. An unknown zone means UTC.
    let time = |cells: &[Vec<(String, String, String)>]| -> jiff::civil::DateTime {
        cells[1][at].0[..19].replace(' ', "T").parse().unwrap()
    };
    let utc = read("?zone=Nowhere").await;
    assert_eq!(utc[0][at].0, "State since (UTC)");
    let minutes = time(&cells).since(time(&utc)).unwrap().total(jiff::Unit::Minute).unwrap();
    // A report may have arrived between the two downloads.
    assert!((329.0..=330.0).contains(&minutes), "{minutes}");
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
