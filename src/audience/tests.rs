use super::*;

fn lines(text: &str, settings: &Settings) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, text).unwrap();
    let mut audience = match Audience::open(&Source::File(path), settings) {
        Ok(audience) => audience,
        Err(error) => return vec![error.to_string()],
    };
    let width = audience.columns().names().len();
    let mut lines = Vec::new();
    loop {
        lines.push(match audience.next_line() {
            Ok(None) => return lines,
            Ok(Some(Line::Recipient(row))) => {
                let values: Vec<_> = (0..width).map(|column| row.value(column)).collect();
                format!("{} {} {}", row.row, row.phone, values.join("|"))
            }
            Ok(Some(Line::Skipped { row, reason, .. })) => format!("{row} {reason}"),
            Err(error) => return vec![error.to_string()],
        });
    }
}

fn indian() -> Settings {
    Settings { default_region: Some("IN".into()), ..Settings::default() }
}

#[test]
fn every_usual_dialect_is_read() {
    for delimiter in [",", ";", "\t", "|"] {
        let text = "\u{feff}name,Phone\r\n\"Rao, Asha\nji\",9876543210\r\n\r\nBo,+91 98765 43211\r\n"
            .replace(',', delimiter);
        let name = format!("Rao{delimiter} Asha\nji");
        let expected =
            [format!("1 +919876543210 {name}|9876543210"), "2 +919876543211 Bo|+91 98765 43211".into()];
        assert_eq!(lines(&text, &indian()), expected, "{delimiter:?}");
    }
}

#[test]
fn every_row_comes_out_with_its_reason() {
    let text = "phone,name\n9876543210,a\n+91 9876543210,b\n12,c\n9876543211\n9876543212,d,e\n,f\n";
    assert_eq!(
        lines(text, &indian()),
        [
            "1 +919876543210 9876543210|a",
            "2 duplicate",
            "3 invalid_number",
            "4 +919876543211 9876543211|",
            "5 invalid_content",
            "6 invalid_number"
        ]
    );
}

#[test]
fn headers_may_have_any_case_and_hidden_characters() {
    assert_eq!(
        lines("\u{200b} MSISDN \u{feff},n\n9876543210,a\n", &indian()),
        ["1 +919876543210 9876543210|a"]
    );
    let named = Settings { phone: Some("cell no".into()), ..indian() };
    assert_eq!(lines("n,Cell No\na,9876543210\n", &named), ["1 +919876543210 a|9876543210"]);
}

#[test]
fn an_audience_that_can_not_be_used_says_why() {
    let error = |text: &str| lines(text, &indian()).remove(0);
    assert_eq!(error(""), "a.csv is empty; its first line must name the columns");
    assert_eq!(error("\n\n"), "a.csv is empty; its first line must name the columns");
    assert_eq!(error("phone,name\n"), "a.csv has a header but no rows; add a row for each recipient");
    assert_eq!(
        error("phone,a,a\n1,2,3\n"),
        "a.csv: the column \"a\" occurs twice in the header, as column 2 and column 3; rename one"
    );
    assert!(error("name,age\nx,1\n").contains("found no phone column among"));
    let named = Settings { phone: Some("fone".into()), ..indian() };
    assert!(lines("phone\n9876543210\n", &named)[0].contains("did you mean \"phone\"?"));
}

#[test]
fn recipients_take_memory_only_for_their_own_fields() {
    let list = |count: usize| -> Vec<_> {
        let recipient = |nth: usize| {
            let mut map = serde_json::Map::new();
            map.insert("phone".into(), format!("+91980000{nth:04}").into());
            map.insert(format!("own{nth}"), nth.into());
            map
        };
        (0..count).map(recipient).collect()
    };
    let wide = Settings { columns: usize::MAX, ..Settings::default() };
    // As wide rows they would take four hundred million values.
    let mut audience = Audience::open(&Source::List(list(9_999)), &wide).unwrap();
    for nth in 0..9_999 {
        let Some(Line::Recipient(row)) = audience.next_line().unwrap() else { panic!("{nth}") };
        assert_eq!(
            (row.value(nth + 1), row.value((nth + 1) % 9_999 + 1)),
            (nth.to_string().into(), "".into())
        );
    }
    let error = Audience::open(&Source::List(list(1_000)), &Settings::default()).err().unwrap().to_string();
    assert!(
        error.starts_with("the job's list of recipients has 1001 columns, and at most 1000 are allowed"),
        "{error}"
    );
    assert!(Audience::open(&Source::List(list(999)), &Settings::default()).is_ok());
}

#[test]
fn a_header_of_very_many_columns_is_read_and_refused() {
    let header = (0..100_000).map(|nth| format!("c{nth}")).collect::<Vec<_>>().join(",");
    let error = lines(&format!("phone,{header}\n+919876543210\n"), &indian()).remove(0);
    assert!(error.contains("has 100001 columns, and at most 1000 are allowed"), "{error}");
    let some = (0..900).map(|nth| format!("c{nth}")).collect::<Vec<_>>().join(",");
    let error = lines(&format!("{some}\n1\n"), &indian()).remove(0);
    assert!(
        error.contains("no phone column among c0, c1, ")
            && error.contains("and 880 more")
            && error.len() < 1_000,
        "{error}"
    );
}

#[test]
fn a_quote_that_is_never_closed_does_not_swallow_the_file() {
    for rows in [1, 10, 200_000] {
        let text = format!("phone,name\n9876543212,b\n9876543210,\"a\n{}", "+919876543211,b\n".repeat(rows));
        let error = lines(&text, &indian()).remove(0);
        assert!(error.contains("the quote on line 3 is never closed"), "{error}");
    }
    // The same lines with the quote closed are in order, with and without a last line break.
    for end in ["\n", ""] {
        let text = format!("phone,name\n9876543210,\"a\nb\"{end}");
        assert_eq!(lines(&text, &indian()), ["1 +919876543210 9876543210|a\nb"]);
    }
}

proptest::proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(text in "(phone|a|\"|,|;|\n|\r|\u{feff}|[0-9+ .E-]|\\PC){0,60}") {
        let _ = lines(&text, &indian());
        let _ = lines(&format!("phone,name\n{text}"), &indian());
    }
}

#[test]
fn a_list_in_the_job_is_an_audience_too() {
    let list = serde_json::from_str(
        r#"[{"phone":"9876543210","slots":["a"]},{"phone":919876543211},{"name":"x","phone":"+91 98765 43210"}]"#,
    );
    let mut audience = Audience::open(&Source::List(list.unwrap()), &indian()).unwrap();
    assert_eq!(audience.columns().names(), ["phone", "slots", "name"]);
    let Some(Line::Recipient(row)) = audience.next_line().unwrap() else { panic!() };
    assert_eq!((row.value(1), row.value(2)), ("[\"a\"]".into(), "".into()));
    assert!(matches!(audience.next_line().unwrap(), Some(Line::Recipient(_))));
    assert!(matches!(
        audience.next_line().unwrap(),
        Some(Line::Skipped { reason: SkipReason::Duplicate, .. })
    ));
    assert!(audience.next_line().unwrap().is_none());
}

/// Returns the lines that are read from a file of a spreadsheet, and the remarks about it.
fn read_as(name: &str, bytes: &[u8], settings: &Settings) -> Result<(Vec<String>, Vec<String>), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let source = Source::File(path);
    let scan = scan(&source, settings).map_err(|error| error.to_string())?;
    let settings = Settings { encoding: Some(scan.encoding), ..settings.clone() };
    let mut audience = Audience::open(&source, &settings).map_err(|error| error.to_string())?;
    let columns = audience.columns().names().len();
    let mut lines = Vec::new();
    while let Some(line) = audience.next_line().map_err(|error| error.to_string())? {
        lines.push(match line {
            Line::Recipient(row) => {
                let values: Vec<String> = (0..columns).map(|column| row.shown(column)).collect();
                format!("{} {}", row.phone, values[1..].join("|"))
            }
            Line::Skipped { reason, .. } => reason.as_str().to_owned(),
        });
    }
    Ok((lines, scan.notes(settings.hidden_rows)))
}

#[test]
fn csv_is_read_as_programs_export_it() {
    let india = Settings { default_region: Some("IN".into()), ..Settings::default() };
    let asha = ["+919876543210 Asha"];
    for text in [
        "sep=;\nphone;name\n9876543210;Asha\n",
        "\"sep=;\"\r\nphone;name\r\n9876543210;Asha\r\n",
        "\u{feff}sep=\t\nphone\tname\n9876543210\tAsha\n",
        "\"Phone\nNumber\",name\n9876543210,Asha\n",
        "Phone\u{a0}Number\u{200b},\u{feff}name\n9876543210, Asha \n",
        "phone,name,,,\n9876543210,Asha,,,\n",
        "phone,name\n9876543210,Asha,,,,\n",
        "phone,name\n9876543210,\u{a0}Asha\u{200b}\n",
    ] {
        assert_eq!(read_as("a.csv", text.as_bytes(), &india).unwrap().0, asha, "{text:?}");
    }
    let (lines, notes) =
        read_as("a.csv", b"Customers of Pune\n\nphone,name\n,\n9876543210,Asha\n,,,\n , \n", &india).unwrap();
    assert_eq!(lines, asha);
    assert_eq!(
        notes,
        [
            "the first line is a title, so the next line is the header",
            "3 rows without any value: not counted"
        ]
    );
    // A single column is not a title.
    assert_eq!(read_as("a.csv", b"phone\n9876543210\n", &india).unwrap().0, ["+919876543210 "]);
    assert_eq!(read_as("a.csv", b"phone,\n9876543210,Asha\n", &india).unwrap().0.len(), 1);
}

#[test]
fn a_file_that_is_not_a_list_says_what_it_is_and_what_to_do() {
    let india = Settings { default_region: Some("IN".into()), ..Settings::default() };
    for (name, bytes, part) in [
        (
            "a.csv",
            &b"9876543210,Asha\n9876543211,Ravi\n"[..],
            "the first line contains a phone number; add a line above",
        ),
        ("a.csv", b"9876543210,Asha\n", "the first line contains a phone number; add a line above"),
        (
            "a.csv",
            b"phone,name,name\n9876543210,a,b\n",
            "occurs twice in the header, as column 2 and column 3",
        ),
        ("a.csv", b"PK\x03\x04rest", "a workbook whose name does not end in .xlsx"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old workbook (.xls)"),
        ("a.csv", b"<html><table><tr><td>phone", "a web page, whatever its name says"),
        ("a.csv", b"%PDF-1.7", "a PDF"),
        ("a.xlsx", b"<html><table><tr><td>phone", "a web page, whatever its name says"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old workbook (.xls), or one with a password"),
        (
            "a.xlsx",
            b"PK\x03\x04\x14\0\0\x08\0\0mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
            "an OpenDocument file (.ods); save it as .xlsx",
        ),
        ("a.csv", b"phone,name\n9876543210,A\x00sha\n", "line 2 contains a NUL byte"),
        ("a.csv", b"phone,name\n9876543210,A\xc2\x85sha\n", "line 2 contains a control character"),
        ("a.csv", b"phone,name\r9876543210,Asha\r", "a carriage return without a line feed"),
        ("a.csv", b"phone,name\n9876543210,Jos\x8e\n", "set its \"encoding\""),
    ] {
        let error = read_as(name, bytes, &india).unwrap_err();
        assert!(error.contains(part), "{error}");
        assert!(!error.contains("98765"), "{error}");
    }
    // A named encoding is never replaced by a guess.
    let utf8 = Settings { encoding: Encoding::named("utf-8"), ..india.clone() };
    let latin = b"phone,name\n9876543210,Jos\xe9\n9876543211,Ren\xe9e\n";
    assert!(read_as("a.csv", latin, &india).is_ok());
    let error = read_as("a.csv", latin, &utf8).unwrap_err();
    assert!(error.starts_with("a.csv is not UTF-8: byte 25 (line 2)"), "{error}");
    // Text that cannot be decoded is an error.
    let shift_jis = Settings { encoding: Encoding::named("shift_jis"), ..india.clone() };
    let error = read_as("a.csv", b"phone,name\n9876543210,\x83A\x83T\n9876543211,\x81\x00\xff\n", &shift_jis);
    let error = error.unwrap_err();
    assert!(error.contains("line 3 contains a NUL byte"), "{error}");
    let error = read_as("a.csv", b"phone,name\n9876543210,\x83A\x83T\n9876543211,\xff\n", &shift_jis);
    let error = error.unwrap_err();
    assert!(
        error.contains("line 3 contains bytes that are not valid in the encoding used to read the file"),
        "{error}"
    );
    // A line that names no delimiter is a line like others.
    for text in
        [&b"sep=\xa9\nphone;name\n9876543210;Jos\xc3\xa9\n"[..], b"sep=a\nphone,name\n9876543210,Asha\n"]
    {
        let read = read_as("a.csv", text, &india);
        assert!(!format!("{read:?}").contains("Jos\""), "{read:?}");
    }
    let mac = Settings { encoding: Encoding::named("macintosh"), ..india };
    assert_eq!(
        read_as("a.csv", b"phone,name\n9876543210,Jos\x8e\n", &mac).unwrap().0,
        ["+919876543210 Jos\u{e9}"]
    );
}

#[test]
fn one_person_in_two_spellings_is_one_recipient() {
    let text = "phone\n+5511987654321\n+551187654321\n+525512345678\n+5215512345678\n+5491123456789\n+541123456789\n";
    let lines = lines(text, &Settings::default());
    assert_eq!(lines.iter().filter(|line| line.contains("duplicate")).count(), 3, "{lines:?}");
}
