use proptest::prelude::*;

use super::*;

fn indian(text: &str) -> Result<String, PhoneError> {
    PhoneParser::new(Some("IN")).parse(text).map(|phone| phone.to_string())
}

#[test]
fn every_usual_spelling_is_understood() {
    for text in [
        "+919876543210",
        "9876543210",
        "09876543210",
        "919876543210",
        "0091 98765 43210",
        "+91 (98765) 43-210",
        "(+91) 98765-43210",
        " +91\u{a0}98765\u{200b}43210 ",
        "'+919876543210",
        "+91-98765-43210",
        "\u{202a}+91 98765 43210\u{202c}",
        "+91.98765.43210",
        // As spreadsheets and other programs write them.
        "919876543210.0",
        "9876543210.00",
        "9876543210,0",
        "919.876.543.210,00",
        "919,876,543,210",
        "9,876,543,210.00",
        "+919,876,543,210",
        "9.19876543210E+11",
        "9.198765432100E+11",
        "9,19876543210e11",
        "9.876543210E9",
        "=\"+919876543210\"",
        "=+919876543210",
        "\"9876543210\"",
        "p:+919876543210",
        "whatsapp:+919876543210",
        "tel:+91-98765-43210",
        "Mob: 98765 43210",
        "wa.me/919876543210",
        "https://wa.me/919876543210?text=hi",
        "https://api.whatsapp.com/send?phone=919876543210&text=hi",
        "\u{669}\u{668}\u{667}\u{666}\u{665}\u{664}\u{663}\u{662}\u{661}\u{660}",
        "\u{96f}\u{96e}\u{96d}\u{96c}\u{96b}\u{96a}\u{969}\u{968}\u{967}\u{966}",
        "\u{ff0b}\u{ff19}\u{ff11}9876543210",
        "98765/43210",
        "98765 43210\r\n",
        "98765 43210 /",
    ] {
        assert_eq!(indian(text).as_deref(), Ok("+919876543210"), "{text:?}");
    }
    assert_eq!(indian("+1 (415) 555-2671").as_deref(), Ok("+14155552671"));
    assert_eq!(indian("0044 7911 123456").as_deref(), Ok("+447911123456"));
    // The national number starts with the country code.
    assert_eq!(indian("91002 67917").as_deref(), Ok("+919100267917"));
}

#[test]
fn an_invalid_number_is_refused_with_its_reason() {
    use PhoneError::*;
    for (text, reason) in [
        ("", Empty),
        (" \u{200b}", Empty),
        ("whatsapp:", Empty),
        ("9.19876E+11", Rounded),
        ("9,19876e+11", Rounded),
        ("9.1987654321E+11", Rounded),
        ("9.1987654321E-11", Rounded),
        ("9.19876543210E+99", Rounded),
        ("98765O3210", Characters),
        ("+91 98765+43210", Characters),
        ("98765,43210", Characters),
        ("\u{bd}9876543210", Characters),
        ("98765 43210 / 98765 43211", Several),
        ("98765 43210 / 6", Several),
        ("9876543210/11", Several),
        ("98765 43210\n98765 43211", Several),
        ("9876543210 9876543211", Several),
        ("9876543210 - 9876543211", Several),
        ("9876543210, 9876543211", Several),
        ("9876543210;9876543211", Several),
        ("9876543210 or 9876543211", Several),
        ("+919876543210+919876543211", Several),
        ("022-24893147/80", Several),
        ("+91 22 2489 3147 ext. 12", Extension),
        ("022 24893147 x12", Extension),
        ("022 24893147#12", Extension),
        ("tel:+91-22-24893147;ext=12", Extension),
        ("12345", Invalid),
        ("+91 12345", Invalid),
        ("+919876543210123", Invalid),
        ("0000000000", Invalid),
        ("+", Invalid),
        ("-", Invalid),
        ("99999999999999999999999999", Invalid),
        ("+0", Invalid),
    ] {
        assert_eq!(indian(text), Err(reason), "{text:?}");
    }
    assert_eq!(PhoneParser::new(None).parse("9876543210"), Err(NoRegion));
    let indonesian = PhoneParser::new(Some("ID"));
    assert_eq!(indonesian.parse("0812-3456-785 / 6"), Err(Several));
    assert_eq!(indonesian.parse("0812-3456-785"), "+628123456785".parse().map_err(|_| Invalid));
}

#[test]
fn a_number_means_the_same_in_every_region() {
    let read = |region: &str, text: &str| PhoneParser::new(Some(region)).parse(text).unwrap().to_string();
    for region in PHONE_NUMBER_UTIL.get_supported_regions() {
        for (text, number) in [
            ("+49 1512 3456789", "+4915123456789"),
            ("0049 1512 3456789", "+4915123456789"),
            ("0091 98765 43210", "+919876543210"),
            ("001 415 555 2671", "+14155552671"),
            ("wa.me/4915123456789", "+4915123456789"),
        ] {
            assert_eq!(read(region.as_region_str().as_str(), text), number, "{region:?}: {text}");
        }
    }
    // Foreign numbers with the international prefix of the region.
    for (region, text) in [
        ("US", "011 49 1512 3456789"),
        ("AU", "0011 49 1512 3456789"),
        ("RU", "8~10 49 1512 3456789"),
        ("JP", "010 49 1512 3456789"),
        ("BR", "0021 49 1512 3456789"),
    ] {
        assert_eq!(read(region, text), "+4915123456789", "{region}");
    }
    for (region, text, number) in [
        ("DE", "490 36328215", "+4949036328215"),
        ("DE", "0176/12345678", "+4917612345678"),
        ("AT", "0664/123 45 67", "+436641234567"),
        ("BE", "0475/12.34.56", "+32475123456"),
        ("KZ", "7013816130", "+77013816130"),
        ("NO", "47123457", "+4747123457"),
        ("IT", "06 6988 3145", "+390669883145"),
        ("AR", "011 15-2345-6789", "+5491123456789"),
        ("MX", "55 1234 5678", "+525512345678"),
    ] {
        assert_eq!(read(region, text), number, "{region}: {text}");
    }
}

#[test]
fn the_region_that_would_help_is_found() {
    let texts = ["98765 43210", "91234 56789", "70123 45678", "12"];
    let best = |likely: &str| PhoneParser::best_region(&texts, likely.parse().ok());
    assert_eq!(best("+912248931479"), Some(("IN".to_owned(), 3)));
    assert_eq!(PhoneParser::best_region(&["x", ""], None), None);
    // A number that several countries have is the sender's own.
    let one = ["2015550123"];
    assert_eq!(PhoneParser::best_region(&one, "+14155552671".parse().ok()), Some(("US".to_owned(), 1)));
}

#[test]
fn the_usual_numbers_need_no_library() {
    for number in ["+919876543210", "+5511961234567", "+6281234567890", "+14155552671", "+447400123456"] {
        assert!(PhoneParser::new(None).plainly(number).is_some(), "{number}");
    }
    assert!(PhoneParser::new(Some("IN")).plainly("9876543210").is_some());
}

proptest! {
    #[test]
    fn parsing_is_idempotent_and_never_panics(text in "[+0-9 ()./-]{0,20}|\\PC{0,20}|.{0,20}|(\\+|00)?(91|1|44|55|62|49)[0-9]{6,11}|(p:|=|tel:|wa.me/)?[0-9E.,+]{0,20}( ?(ext|x|#|/) ?[0-9]{1,4})?") {
        for region in [None, Some("IN"), Some("US"), Some("IT")] {
            let numbers = PhoneParser::new(region);
            if let Ok(phone) = numbers.parse(&text) {
                prop_assert_eq!(numbers.parse(&phone.to_string()), Ok(phone));
            }
        }
    }

    #[test]
    fn the_fast_path_and_the_parser_agree(code in prop::sample::select(vec![91_u16, 1, 44, 55, 62, 49, 39, 52, 54, 234, 7, 971, 225]), national in "[0-9]{6,12}") {
        let text = format!("+{code}{national}");
        if let Some(phone) = PhoneParser::new(None).plainly(&text) {
            prop_assert_eq!(valid(PHONE_NUMBER_UTIL.parse(&text, None)), Ok(phone));
        }
    }

    #[test]
    fn the_fast_path_and_the_parser_agree_within_a_region(region in prop::sample::select(vec!["IN", "US", "GB", "BR", "ID", "DE", "IT", "MX", "AR", "NG", "RU", "AE", "CI", "FR", "ZA"]), national in "[0-9]{5,13}") {
        let parser = PhoneParser::new(Some(region));
        if let Some(phone) = parser.plainly(&national) {
            prop_assert_eq!(valid(PHONE_NUMBER_UTIL.parse(&national, parser.region)), Ok(phone));
        }
    }
}
