use super::*;

/// The fields of a CSV file as `LibreOffice` and Python write it.
fn csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(next) = chars.next() {
        let row = rows.last_mut().unwrap();
        match next {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                row.last_mut().unwrap().push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(String::new()),
            '\n' if !quoted => rows.push(vec![String::new()]),
            other => row.last_mut().unwrap().push(other),
        }
    }
    rows.retain(|row| row.len() > 1);
    rows
}

fn format_of(code: &str) -> NumberFormat {
    match code.strip_prefix("id:") {
        Some(id) => NumberFormat::builtin(id.parse().unwrap()).unwrap(),
        None => NumberFormat::parse(code),
    }
}

fn shown(code: &str, value: &str, dates: DateSystem) -> String {
    let format = format_of(code);
    value.parse().map_or_else(|_| format.text(value), |number| format.number(number, dates))
}

/// Compares each line of a fixture. Intended differences are given as code, value and the shown text
/// instead.
fn judge(text: &str, dates: DateSystem, differences: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    let mut met = 0;
    let rows = csv(text);
    for row in &rows {
        let [code, value, judged] = row.as_slice() else { panic!("{row:?}") };
        let ours = shown(code, value, dates);
        let meant = differences.iter().find(|difference| difference.0 == code && difference.1 == value);
        met += usize::from(meant.is_some());
        let expected = meant.map_or(judged.as_str(), |difference| difference.2);
        if ours != expected || (meant.is_some() && expected == judged) {
            wrong.push(format!("{code} | {value} | judge ‹{judged}› expected ‹{expected}› ours ‹{ours}›"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert_eq!(met, differences.len(), "some differences are not in the fixture");
}

/// Where we mean to differ from `LibreOffice` 7.4.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    // A long whole number may be a phone number or an account. An exponent has two digits, as in Excel.
    ("General", "1e+16", "10000000000000000"),
    ("General", "-1e+16", "-10000000000000000"),
    ("General", "12345678901234567", "12345678901234568"),
    ("General", "1e+20", "1E+20"),
    // LibreOffice rounds 28.499999999999996.
    ("0%", "0.285", "29%"),
    ("0%", "0.145", "15%"),
    ("0%", "1.005", "101%"),
    // Each percent sign multiplies in Excel.
    ("0%%", "0.15", "1500%%"),
    ("0.0%%", "0.15", "1500.0%%"),
    // A comma between places parts thousands in Excel, and one before the point divides.
    ("#,#", "1234567", "1,234,567"),
    ("0,.0", "12345", "12.3"),
    // LibreOffice drops the sign of a negative number.
    ("[>=100]\"big \"0;\"small \"0", "-5", "-small 5"),
    ("[>=100]\"big \"0;\"small \"0", "-200", "-small 200"),
    ("[=0]\"none\";0.0", "-5", "-5.0"),
    ("[>=1000000]0.0,,\"M\";[>=1000]0.0,\"K\";0", "-5", "-5"),
    ("[>=1000000]0.0,,\"M\";[>=1000]0.0,\"K\";0", "-1234567", "-1234567"),
    ("[>=10000000]##\\,##\\,##\\,##0.00;[>=100000]##\\,##\\,##0.00;##,##0.00", "-5", "-5.00"),
    ("[>=10000000]##\\,##\\,##\\,##0.00;[>=100000]##\\,##\\,##0.00;##,##0.00", "-123456.5", "-123,456.50"),
    ("[>1.5]0.0;[<-2]0.00;0.000", "-1", "-1.000"),
    // A lone colour hides nothing.
    ("[Red]", "5", "5"),
    ("[Red]", "-5", "-5"),
    // LibreOffice drops the space between a whole number and a fraction of `#`.
    ("# #/#", "0.5", " 1/2"),
    ("# #/#", "3", "3 "),
    ("# #/#", "0", "0 "),
    // Too large for a fraction.
    ("# ?/?", "1000000000000.0", "1000000000000"),
    // Not a date.
    ("hh:mm", "-0.25", "-0.25"),
    ("hh:mm", "2958466", "2958466"),
    ("yyyy", "-1", "-1"),
    // Excel's days before March 1900. LibreOffice counts on without the leap day.
    ("DD/MM/YYYY", "0", "00/01/1900"),
    ("DD/MM/YYYY", "0.5", "00/01/1900"),
    ("DD/MM/YYYY", "1", "01/01/1900"),
    ("DD/MM/YYYY", "59", "28/02/1900"),
    ("DD/MM/YYYY", "60", "29/02/1900"),
    // 9:30, as it is stored with nine digits.
    ("hh:mm", "0.395833333", "09:30"),
    // As the code spells it.
    ("h:mm A/P", "0.25", "6:00 A"),
    ("h:mm A/P", "0.75", "6:00 P"),
    // LibreOffice does not read these.
    ("[s].00", "1.123456789", "97066.67"),
    ("[ss].00", "0.123456789", "10666.67"),
    ("[$-x-sysdate]dddd, mmmm dd, yyyy", "44200", "Monday, January 4, 2021"),
    ("[$-en-US]d mmmm", "44197", "1 January"),
    ("[$-de-DE]d mmmm", "44197", "1 Januar"),
    ("[$-40A]ddd dddd d mmm mmmm", "45292", "lun lunes 1 ene enero"),
    ("[$-40A]ddd dddd d mmm mmmm", "45324", "vie viernes 2 feb febrero"),
    ("[$-40A]#,##0.00", "1234567.5", "1.234.567,50"),
    // LibreOffice misspells some Hindi names.
    ("[$-439]ddd dddd d mmm mmmm", "45292", "सोम सोमवार 1 जन॰ जनवरी"),
    ("[$-439]ddd dddd d mmm mmmm", "45324", "शुक्र शुक्रवार 2 फ़र॰ फ़रवरी"),
];

#[test]
fn shows_what_libreoffice_shows() {
    judge(
        include_str!("../../../../tests/fixtures/workbooks/formats.csv"),
        DateSystem::From1900,
        DIFFERENCES,
    );
}

#[test]
fn shows_dates_of_the_1904_system() {
    judge(include_str!("../../../../tests/fixtures/workbooks/formats1904.csv"), DateSystem::From1904, &[]);
}

/// The codes and values of libreoffice.xlsx, which `LibreOffice` has written.
#[test]
fn shows_a_sheet_of_libreoffice() {
    let cells = [
        ("hh:mm", 0.395_833_333_333_333),
        ("[h]:mm", 1.5),
        ("0%", 0.15),
        ("#,##0.00", 1499.5),
        ("#,##0.00", 2500.0),
        ("General", 0.1 + 0.2),
        ("dd/mm/yyyy", 45351.0),
        ("[$-407]d/\\ mmmm\\ yyyy", 45352.0),
        ("dd/mm/yyyy", 45291.0),
        ("[$₹-4009]\\ #,##0.00;\\-[$₹-4009]\\ #,##0.00", 1_234_567.5),
        ("[$₹-4009]\\ #,##0.00;\\-[$₹-4009]\\ #,##0.00", -99.995),
        ("General", 919_876_543_210.0),
        ("# ?/?", 2.375),
        ("0.00E+00", 0.000_123_45),
    ];
    let judged: Vec<String> = csv(include_str!("../../../../tests/fixtures/workbooks/libreoffice.csv"))
        .into_iter()
        .skip(1)
        .filter_map(|row| row.into_iter().nth(1))
        .collect();
    let ours = cells.map(|(code, value)| NumberFormat::parse(code).number(value, DateSystem::From1900));
    assert_eq!(judged, ours);
}

#[test]
fn recognises_general() {
    let general = |code| NumberFormat::parse(code).is_general();
    assert!(general("General") && general("") && general("[Red]GENERAL") && general("@") && general("[Red]"));
    assert!(
        !general("0") && !general("General\" m\"") && !general("0;General") && !general("[$-407]General")
    );
    assert!(NumberFormat::builtin(0).unwrap().is_general());
    assert!(NumberFormat::builtin(23).is_none() && NumberFormat::builtin(164).is_none());
}

#[test]
fn shows_an_odd_code_as_general() {
    let long = format!("0{}", "\\x".repeat(500));
    for code in [long.as_str(), "0;0;0;0;0"] {
        assert_eq!(NumberFormat::parse(code).number(1234.5, DateSystem::From1900), "1234.5");
        assert_eq!(NumberFormat::parse(code).text("as it is"), "as it is");
    }
}

#[test]
fn keeps_a_sign_unless_the_section_is_for_negatives() {
    let shown = |code: &str, value| NumberFormat::parse(code).number(value, DateSystem::From1900);
    assert_eq!(shown("[>=0]0.0;(0.0)", -5.0), "(5.0)");
    assert_eq!(shown("[<-10](0);[<0]-0;0", -5.0), "-5");
    assert_eq!(shown("[>0]0;[=0]\"-\";(0)", -5.0), "(5)");
    assert_eq!(shown("[<=0]-0;0", -5.0), "-5");
    assert_eq!(shown("0.0;[=0]\"-\"", -5.0), "-5.0");
    assert_eq!(shown("General;-General", -5.5), "-5.5");
}

#[test]
fn counts_days() {
    let shown = |value, dates| NumberFormat::parse("yyyy-mm-dd ddd").number(value, dates);
    let modern = |value| shown(value, DateSystem::From1900);
    assert_eq!(modern(60.0), "1900-02-29 Wed");
    assert_eq!(modern(61.0), "1900-03-01 Thu");
    assert_eq!(modern(36585.0), "2000-02-29 Tue");
    assert_eq!(modern(73109.0), "2100-02-28 Sun");
    assert_eq!(modern(73110.0), "2100-03-01 Mon");
    assert_eq!(modern(2_958_465.999), "9999-12-31 Fri");
    assert_eq!(modern(2_958_466.0), "2958466");
    assert_eq!(shown(2_957_003.0, DateSystem::From1904), "9999-12-31 Fri");
    assert_eq!(shown(2_957_004.0, DateSystem::From1904), "2957004");
    let mut last = String::new();
    for day in 61..80_000 {
        let next = modern(f64::from(day));
        let (date, before) = (&next[..10], last.get(..10).unwrap_or_default());
        assert!(date > before, "{before} {date}");
        last = next;
    }
}

/// A little generator of numbers, the same each time.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

const WORDS: [&str; 64] = [
    "0",
    "#",
    "?",
    ".",
    ",",
    "%",
    "E+",
    "E-",
    "e+0",
    "/",
    ";",
    "@",
    "General",
    "y",
    "yyyy",
    "m",
    "mm",
    "mmm",
    "d",
    "dddd",
    "h",
    "hh",
    "s",
    "ss",
    "ss.000",
    "AM/PM",
    "A/P",
    "[h]",
    "[mm]",
    "[s]",
    "[Red]",
    "[>=100]",
    "[<0]",
    "[=0]",
    "[<>5]",
    "[$€-407]",
    "[$-40C]",
    "[$-439]",
    "[$-F800]",
    "[$",
    "[",
    "]",
    "\"",
    "\"x\"",
    "\\",
    "_",
    "*",
    "-",
    "+",
    "(",
    ")",
    ":",
    " ",
    "$",
    "₹",
    "8",
    "16",
    "??/??",
    "#,##0",
    "0000000000",
    "[$-1]",
    "[>1e400]",
    "1",
    "mmmmm",
];
const VALUES: [f64; 24] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1499.5,
    45_291.999_999,
    -45291.5,
    60.0,
    1e-300,
    5e-324,
    -1e-10,
    1e15,
    1e17,
    -12_345_678_901_234_567.0,
    1e22,
    f64::MAX,
    f64::MIN,
    f64::NAN,
    f64::INFINITY,
    2_958_465.999_999_999_5,
    1e8,
    0.999_999_999_9,
];

#[test]
fn accepts_any_code() {
    let mut random = Lcg(1);
    for case in 0..200_000 {
        let code: String = (0..=random.below(12)).map(|_| WORDS[random.below(WORDS.len())]).collect();
        let format = NumberFormat::parse(&code);
        let mut value = VALUES[random.below(VALUES.len())];
        if case % 3 == 0 {
            value = f64::from_bits((random.below(1 << 31) as u64) << 33 | random.below(1 << 31) as u64);
        }
        let dates = if case % 2 == 0 { DateSystem::From1900 } else { DateSystem::From1904 };
        let shown = format.number(value, dates);
        assert!(shown.len() <= 1024, "{code} {value} {}", shown.len());
        assert!(format.text("text").len() <= 1024);
        if format.is_general() && value.is_finite() {
            assert_eq!(shown, NumberFormat::parse("General").number(value, dates), "{code}");
        }
    }
    for word in WORDS {
        let code = word.repeat(1000 / word.len());
        let format = NumberFormat::parse(&code);
        for value in VALUES {
            let shown = format.number(value, DateSystem::From1900);
            assert!(shown.len() <= 8192, "{word} {value} {}", shown.len());
        }
        assert!(format.text(&"text".repeat(1000)).len() <= 20_000);
    }
}

/// A number with 15 digits reads as itself.
#[test]
fn general_keeps_fifteen_digits() {
    let mut random = Lcg(7);
    let format = NumberFormat::parse("General");
    for _ in 0..50_000 {
        let digits = random.below(1 << 31) as f64 * random.below(1 << 18) as f64;
        let text = format!("{digits}e{}", i64::try_from(random.below(60)).unwrap() - 40);
        let value: f64 = text.parse().unwrap();
        let shown = format.number(value, DateSystem::From1900);
        assert_eq!(shown.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{shown}");
        assert!(value.fract() != 0.0 || value.abs() >= 1e17 || !shown.contains('E'), "{shown}");
    }
}
