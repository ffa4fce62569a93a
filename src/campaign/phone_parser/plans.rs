//! Patterns of mobile numbers in the countries with the most users, from libphonenumber's plans (9.0.42): the library
//! does not expose its own. Each pattern is a subset of what the library considers valid; a test generates numbers
//! from each pattern and checks them with the library.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// The mobile numbers of a calling code.
pub(super) struct Plan {
    code: u16,
    pattern: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

impl Plan {
    const fn new(code: u16, pattern: &'static str) -> Self {
        Self { code, pattern, compiled: OnceLock::new() }
    }

    /// Returns the plan of a calling code, if there is one.
    pub(super) fn for_country(code: u16) -> Option<&'static Self> {
        PLANS.iter().find(|plan| plan.code == code)
    }

    /// Returns whether national digits, in ASCII, are a mobile number.
    pub(super) fn is_mobile(&self, national: &str) -> bool {
        let compile = || RegexBuilder::new(&format!("^(?:{})$", self.pattern)).unicode(false).build().ok();
        self.compiled.get_or_init(compile).as_ref().is_some_and(|pattern| pattern.is_match(national))
    }
}

/// Sorted by number of users.
static PLANS: [Plan; 22] = [
    Plan::new(
        91,
        concat!(
            r"(?:6(?:1279|828[01489])|7(?:887[02-9]|9313)|8(?:079[04-9]|(?:84|91)7[02-8]))[0-9]{5}|(?:16",
            r"0[01]|6(?:(?:12|[2-4]1|5[17]|6[13]|80)[0189]|7(?:1[0189]|86))|7(?:1(?:2[0189]|9[0-5])|3(?:",
            r"2[5-8]|[34][017-9]|9[016-9])|5(?:[15][017-9]|2[04-9]|9[7-9])|6(?:0[0-47]|1[0-257-9]|2[0-4]",
            r"|3[19]|5[4589])|70[0289]|88[089])|8(?:0(?:6[67]|7[02-8])|70[017-9]|84[01489]|91[0-289]))[0",
            r"-9]{6}|(?:731|8(?:16|2[014]|3[126]|6[136]|7[78]|83))(?:[0189][0-9]|7[02-8])[0-9]{5}|(?:6(?",
            r":(?:1[1358]|2[2457]|3[2-4]|4[235-7]|5[2-689]|6[24578])[0-9]|7(?:[23569][0-9]|4[0189]|8[0-5",
            r"7-9])|8(?:[14-6][0-9]|2[0-79]))|7(?:1(?:[013-8][0-9]|9[6-9])|3(?:2[0-49]|9[2-5])|5(?:2[1-3",
            r"]|9[0-6])|6(?:0[5689]|2[5-9]|3[02-8]|4[0-9]|5[0-367])|70[13-7]|881))[0189][0-9]{5}|(?:6(?:",
            r"[09][0-9]|1[04679]|2[03689]|3[05-9]|4[0489]|50|6[069]|7[07]|8[7-9])|7(?:[024][0-9]|3[05-8]",
            r"|5[0346-8]|6[6-9]|7[1-9]|8[0-79]|9[06-9])|8(?:0[01589]|1[0-57-9]|2[235-9]|3[03-57-9]|[45][",
            r"0-9]|6[02457-9]|7[1-69]|8[0-25-9]|9[02-9])|9[0-9][0-9])[0-9]{7}",
        ),
    ),
    Plan::new(55, r"(?:[14689][1-9]|2[12478]|3[1-578]|5[13-5]|7[13-579])(?:7|9[0-9])[0-9]{7}"),
    Plan::new(62, r"8[1-35-9][0-9]{7,10}"),
    Plan::new(
        1,
        concat!(
            r"983[2-57-9][0-9]{6}|(?:2(?:0[1-35-9]|1[02-9]|2[03-57-9]|3[1459]|4[08]|5[1-46]|6[0279]|7[02",
            r"469]|8[13])|3(?:0[1-57-9]|1[02-9]|2[013-79]|3[0-24679]|4[167]|5[0-3]|6[01349]|8[056])|4(?:",
            r"0[124-9]|1[02-579]|2[3-5]|3[0245]|4[023578]|58|6[349]|7[02589]|8[04])|5(?:0[1-57-9]|1[0235",
            r"-8]|20|3[0149]|4[01]|5[179]|6[1-47]|7[0-5]|8[0256])|6(?:0[1-35-9]|1[024-9]|2[03689]|3[016]",
            r"|4[0156]|5[01679]|6[0-279]|78|8[0-269])|7(?:0[1-46-8]|1[2-9]|2[04-8]|3[0-2478]|4[0378]|5[4",
            r"7]|6[02359]|7[0-59]|8[156])|8(?:0[1-68]|1[02-8]|2[0168]|3[0-2589]|4[03578]|5[046-9]|6[02-5",
            r"]|7[028])|9(?:0[1346-9]|1[02-9]|2[0589]|3[0146-8]|4[01357-9]|5[12469]|7[0-3589]|8[04-69]))",
            r"[2-9][0-9]{6}",
        ),
    ),
    Plan::new(52, r"55[0-9]{8}"),
    Plan::new(
        234,
        concat!(
            r"(?:702[0-24-9]|819[01])[0-9]{6}|(?:7(?:0[13-9]|[12][0-9])|8(?:0[1-9]|1[0-8])|9(?:0[1-9]|1[",
            r"0-6]))[0-9]{7}",
        ),
    ),
    Plan::new(
        44,
        concat!(
            r"7(?:457[0-57-9]|700[01]|911[028])[0-9]{5}|7(?:[1-3][0-9][0-9]|4(?:[0-46-9][0-9]|5[0-689])|",
            r"5(?:0[0-8]|[13-9][0-9]|2[0-35-9])|7(?:0[1-9]|[1-7][0-9]|8[02-9]|9[0-689])|8(?:[014-9][0-9]",
            r"|[23][0-8])|9(?:[024-9][0-9]|1[02-9]|3[0-689]))[0-9]{6}",
        ),
    ),
    Plan::new(971, r"5[02-68][0-9]{7}"),
    Plan::new(27, r"6[0-9]{8}|7[1-46-9][0-9]{7}"),
    Plan::new(49, r"1(?:6[023]|7[0-9])[0-9]{7,8}|15[0-25-9][0-9]{8}"),
    Plan::new(34, r"9(?:6906(?:09|10)|7390[0-9][0-9])[0-9][0-9]|(?:6[0-9]|7[1-48])[0-9]{7}"),
    Plan::new(39, r"3[2-9][0-9]{7,8}|(?:31|43)[0-9]{8}"),
    Plan::new(966, r"579[0-8][0-9]{5}|5(?:[013-689][0-9]|7[0-8])[0-9]{6}"),
    Plan::new(92, r"3(?:[0-247][0-9]|3[0-79]|55|64)[0-9]{7}"),
    Plan::new(880, r"(?:1[13-9]|64)[0-9]{8}|(?:3[78]|44|66)[02-9][0-9]{7}"),
    Plan::new(254, r"(?:1(?:0[0-8]|[18][0-9]|2[014]|3[05-9]|4[0-6])|7[0-9][0-9])[0-9]{6}"),
    Plan::new(20, r"1[0-25][0-9]{8}"),
    Plan::new(90, r"5(?:[03-5][0-9]|1[06])[0-9]{7}"),
    Plan::new(63, r"(?:8(?:1[37]|9[5-8])|9(?:0[5-9]|1[0-24-9]|[235-7][0-9]|4[2-9]|8[135-9]|9[1-9]))[0-9]{7}"),
    Plan::new(57, r"3(?:0[0-5]|1[0-9]|2[0-3]|5[01])[0-9]{7}"),
    Plan::new(33, r"(?:6(?:[0-24-8][0-9]|3[0-8]|9[589])|7[3-9][0-9])[0-9]{6}"),
    Plan::new(51, r"9[0-9]{8}"),
];

#[cfg(test)]
mod tests {
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::string::string_regex;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::campaign::PhoneParser;

    #[test]
    fn a_number_that_a_plan_accepts_is_valid_for_the_library() {
        let mut runner = TestRunner::default();
        for plan in &PLANS {
            let strategy = string_regex(plan.pattern).unwrap();
            for _ in 0..200 {
                let national = strategy.new_tree(&mut runner).unwrap().current();
                let text = format!("+{}{national}", plan.code);
                assert!(plan.is_mobile(&national), "{text}");
                // With a blank it is read by the library.
                let read = PhoneParser::new(None).parse(&text.replacen('+', "+ ", 1));
                assert_eq!(read.map(|phone| phone.to_string()), Ok(text));
            }
        }
    }
}
