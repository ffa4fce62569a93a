//! Numbers as decimal digits, and how places for digits show them.

use super::locale::Marks;
use super::section::{Piece, Section};

/// More digits than a spreadsheet keeps are not shown.
const MOST_DIGITS: i32 = 15;

/// A number without its sign: 0.123 with `point` 2 is 12.3.
///
/// The digits are the shortest that tell the number from all others. So 1.005 is rounded as the reader would
/// do it, though the binary number is a bit less.
#[derive(Clone, Debug)]
pub(super) struct Decimal {
    /// Without zeros at either end.
    digits: Vec<u8>,
    pub(super) point: i32,
}

impl Decimal {
    pub(super) fn from_value(value: f64) -> Self {
        let text = format!("{:e}", value.abs());
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let digits = digits.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
        let mut number = Self { digits, point: power.parse::<i32>().unwrap_or(0) + 1 };
        number.trim();
        number
    }

    fn trim(&mut self) {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        if self.digits.is_empty() {
            self.point = 0;
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.places() == 0
    }

    /// How many digits follow the point.
    pub(super) fn places(&self) -> usize {
        let digits = i32::try_from(self.digits.len()).unwrap_or(i32::MAX);
        usize::try_from(digits.saturating_sub(self.point)).unwrap_or(0)
    }

    /// How many digits stand before the point.
    fn whole(&self) -> usize {
        usize::try_from(self.point).unwrap_or(0)
    }

    /// The digit that counts `power` powers of ten.
    fn digit(&self, power: i32) -> char {
        let at = usize::try_from(self.point - 1 - power).ok();
        char::from(b'0' + at.and_then(|at| self.digits.get(at)).copied().unwrap_or(0))
    }

    /// Rounds to a number of digits after the point, halves away from zero.
    pub(super) fn round(&mut self, places: i32) {
        let keep = self.point.saturating_add(places).min(MOST_DIGITS);
        let Ok(keep) = usize::try_from(keep) else {
            self.digits.clear();
            self.trim();
            return;
        };
        let up = self.digits.get(keep).is_some_and(|digit| *digit >= 5);
        self.digits.truncate(keep);
        if up {
            while self.digits.last() == Some(&9) {
                self.digits.pop();
            }
            if let Some(last) = self.digits.last_mut() {
                *last += 1;
            } else {
                self.digits.push(1);
                self.point += 1;
            }
        }
        self.trim();
    }

    /// Without powers of ten.
    pub(super) fn to_text(&self) -> String {
        let mut shown: String = (0..self.point.max(1)).rev().map(|power| self.digit(power)).collect();
        if !self.is_whole() {
            shown.push('.');
            shown.extend((1..).take(self.places()).map(|place: i32| self.digit(-place)));
        }
        shown
    }
}

/// Fills the places before the point, from the left.
struct Whole<'a> {
    number: &'a Decimal,
    marks: Option<Marks>,
    left: usize,
    first: bool,
    zeros: bool,
}

impl<'a> Whole<'a> {
    fn new(number: &'a Decimal, section: &Section, places: usize) -> Self {
        let marks = section.grouped.then_some(section.marks);
        Self { number, marks, left: places, first: true, zeros: false }
    }

    /// Fills one place. The first takes all digits that have no place of their own.
    fn fill(&mut self, place: char, shown: &mut String) {
        self.left = self.left.saturating_sub(1);
        self.zeros |= place == '0';
        let top = if self.first { self.number.whole().max(self.left + 1) } else { self.left + 1 };
        self.first = false;
        for power in (self.left..top).rev() {
            let known = power < self.number.whole();
            let digit = match place {
                _ if known => self.number.digit(i32::try_from(power).unwrap_or(0)),
                _ if self.zeros => '0',
                '?' => ' ',
                _ => continue,
            };
            shown.push(digit);
            if let Some(marks) = self.marks {
                let ends =
                    if marks.indian { power == 3 || (power > 3 && power % 2 == 1) } else { power % 3 == 0 };
                if power > 0 && ends {
                    shown.push(if digit == ' ' { ' ' } else { marks.thousands });
                }
            }
        }
    }
}

/// The places for digits before and after the point.
fn places(section: &Section) -> (usize, Vec<char>) {
    let mut whole = 0;
    let mut after = Vec::new();
    let mut point = false;
    for piece in &section.pieces {
        match piece {
            Piece::Point => point = true,
            Piece::Digit(place) if point => after.push(*place),
            Piece::Digit(_) => whole += 1,
            _ => (),
        }
    }
    (whole, after)
}

/// A number in plain digits.
pub(super) fn number(section: &Section, mut number: Decimal, sign: &str) -> String {
    let (_, after) = places(section);
    if !number.is_zero() {
        number.point += section.shift;
    }
    number.round(i32::try_from(after.len()).unwrap_or(0));
    fill(section, &number, if number.is_zero() { "" } else { sign }, 0)
}

/// A number as digits and a power of ten. With several places before the point, the power is a multiple of
/// how many they are.
pub(super) fn scientific(section: &Section, mut number: Decimal, sign: &str) -> String {
    let (whole, after) = places(section);
    let whole = i32::try_from(whole).unwrap_or(1);
    let after = i32::try_from(after.len()).unwrap_or(0);
    if number.is_zero() {
        return fill(section, &number, "", 0);
    }
    let step = whole.max(1);
    let mut power = number.point + section.shift - i32::from(whole > 0);
    power = power.div_euclid(step) * step;
    number.point += section.shift - power;
    number.round(after);
    // 9.99 may have become 10.0.
    if number.point > whole {
        number.point -= step;
        power += step;
    }
    fill(section, &number, sign, power)
}

/// Puts the digits of a rounded number into their places.
fn fill(section: &Section, number: &Decimal, sign: &str, power: i32) -> String {
    let mut shown = String::from(sign);
    let (places_before, after) = places(section);
    let mut whole = Whole::new(number, section, places_before);
    let least = after.iter().rposition(|place| *place == '0').map_or(0, |last| last + 1);
    let mut point = false;
    let mut place_after = 0;
    for piece in &section.pieces {
        match piece {
            Piece::Literal(literal) => shown.push(*literal),
            Piece::Point => {
                // Whole numbers that have no places for digits before it still have them.
                if places_before == 0 && number.whole() > 0 {
                    whole.left = 1;
                    whole.fill('#', &mut shown);
                }
                point = true;
                if number.places() > 0 || after.iter().any(|place| *place != '#') {
                    shown.push(section.marks.point);
                }
            }
            Piece::Digit(place) if !point => whole.fill(*place, &mut shown),
            Piece::Digit(place) => {
                place_after += 1;
                let known = place_after <= number.places();
                match place {
                    _ if known => shown.push(number.digit(-i32::try_from(place_after).unwrap_or(0))),
                    '0' => shown.push('0'),
                    '?' => shown.push(' '),
                    _ if place_after <= least => shown.push('0'),
                    _ => (),
                }
            }
            Piece::Exponent { letter, plus, width } => {
                shown.push(*letter);
                if power < 0 {
                    shown.push('-');
                } else if *plus {
                    shown.push('+');
                }
                shown.push_str(&format!("{:0width$}", power.unsigned_abs(), width = *width));
            }
            _ => (),
        }
    }
    shown
}

/// Formats a number as a fraction; `None` if it is too large.
pub(super) fn fraction(section: &Section, value: f64, sign: &str) -> Option<String> {
    let value = value * 10_f64.powi(section.shift);
    if value >= 1e11 {
        return None;
    }
    let pieces = &section.pieces;
    let slash = pieces.iter().position(|piece| *piece == Piece::Slash)?;
    let is_digit = |piece: &&Piece| matches!(piece, Piece::Digit(_));
    let above = pieces.iter().take(slash).rev().take_while(is_digit).count();
    let below = pieces.iter().skip(slash + 1).take_while(is_digit).count();
    let whole_places = pieces.iter().take(slash - above).filter(is_digit).count();

    let given =
        pieces.iter().find_map(|p| if let Piece::Denominator(given) = p { Some(*given) } else { None });
    let mut whole = value.floor();
    let part = value - whole;
    let (mut top, bottom) = match given {
        Some(given) => {
            let lower = (part * f64::from(given)).floor();
            let over = (lower + 1.0) / f64::from(given) - part;
            let up = over < part - lower / f64::from(given);
            (lower as u64 + u64::from(up), u64::from(given))
        }
        None => nearest(part, 10_u64.pow(u32::try_from(below.min(6)).unwrap_or(1)) - 1),
    };
    if top == bottom && whole_places > 0 {
        whole += 1.0;
        top = 0;
    }
    if whole_places == 0 {
        top += whole as u64 * bottom;
    }
    // Without a part, its places are left blank, unless they ask for zeros.
    let asks = pieces.iter().take(slash).rev().take(above).any(|piece| *piece == Piece::Digit('0'));
    let blank = top == 0 && whole_places > 0 && !asks;

    let whole_number = Decimal::from_value(if whole_places > 0 { whole } else { 0.0 });
    let none = top == 0 && whole_number.is_zero();
    let mut shown = String::from(if none { "" } else { sign });
    let mut whole_fill = Whole::new(&whole_number, section, whole_places);
    let top_number = Decimal::from_value(top as f64);
    let mut top_fill = Whole::new(&top_number, section, above);
    top_fill.marks = None;
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Literal(literal) => shown.push(*literal),
            Piece::Digit(place) if at < slash - above => {
                // The last place shows a zero if nothing else shows anything.
                let place = if none && blank && whole_fill.left == 1 { '0' } else { *place };
                whole_fill.fill(place, &mut shown);
            }
            Piece::Digit(place) if at < slash + 1 + below => match place {
                '?' if blank => shown.push(' '),
                _ if blank => (),
                _ if at < slash && top == 0 && top_fill.left == 1 => top_fill.fill('0', &mut shown),
                _ if at < slash => top_fill.fill(*place, &mut shown),
                _ if at == slash + 1 => shown.push_str(&denominator(bottom, pieces, slash, below)),
                _ => (),
            },
            Piece::Slash if blank => shown.push_str(if has_question(pieces, slash) { " " } else { "" }),
            Piece::Slash => shown.push('/'),
            Piece::Denominator(given) if !blank => shown.push_str(&given.to_string()),
            _ => (),
        }
    }
    Some(shown)
}

/// Whether the place before the slash is kept blank.
fn has_question(pieces: &[Piece], slash: usize) -> bool {
    slash.checked_sub(1).and_then(|at| pieces.get(at)) == Some(&Piece::Digit('?'))
}

/// A denominator, which fills its places from the left.
fn denominator(bottom: u64, pieces: &[Piece], slash: usize, places: usize) -> String {
    match pieces.get(slash + 1) {
        Some(Piece::Digit('0')) => format!("{bottom:0places$}"),
        Some(Piece::Digit('?')) => format!("{bottom:<places$}"),
        _ => bottom.to_string(),
    }
}

/// The fraction nearest to a number below 1, with a denominator up to a limit. Continued fractions lead to
/// it in a few steps.
fn nearest(part: f64, limit: u64) -> (u64, u64) {
    let limit = limit.max(1);
    let error = |(top, bottom): (u64, u64)| (part - top as f64 / bottom as f64).abs();
    let (mut before, mut best) = ((1, 0), (0, 1));
    let mut rest = part;
    for _ in 0..40 {
        if rest < 1e-12 {
            break;
        }
        rest = 1.0 / rest;
        let times = rest.floor() as u64;
        rest -= rest.floor();
        let room = limit.saturating_sub(before.1) / best.1;
        let taken = times.min(room);
        let next = (taken * best.0 + before.0, taken * best.1 + before.1);
        if times > room {
            if taken > 0 && error(next) < error(best) {
                best = next;
            }
            break;
        }
        (before, best) = (best, next);
    }
    best
}
