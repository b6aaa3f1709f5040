//! Positions on Earth (RFC 1876): `52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m`.

use super::write::{RdataOctets, push};
use crate::load::master::{EntryError, Words, ZoneFileWord, number};

pub(super) fn read(words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let latitude = read_angle(words, ('N', 'S'), 90)?;
    let longitude = read_angle(words, ('E', 'W'), 180)?;
    let altitude = words.next("altitude", ALTITUDE_FORM)?;
    let altitude = read_altitude(altitude).ok_or_else(|| altitude.bad("altitude", ALTITUDE_FORM))?;
    let mut precisions = DEFAULT_PRECISIONS;
    for precision in &mut precisions {
        let Some(word) = words.any()? else {
            break;
        };
        *precision = read_precision(word).ok_or_else(|| word.bad("size or precision", PRECISION_FORM))?;
    }
    out.push(VERSION);
    out.extend(precisions);
    out.extend(latitude.to_be_bytes());
    out.extend(longitude.to_be_bytes());
    out.extend(altitude.to_be_bytes());
    Ok(())
}

pub(super) fn write(octets: &mut RdataOctets<'_>, text: &mut String) -> Option<()> {
    if octets.u8()? != VERSION {
        return None;
    }
    let precisions: [u8; 3] = octets.array()?;
    write_angle(octets.u32()?, ('N', 'S'), 90, text)?;
    text.push(' ');
    write_angle(octets.u32()?, ('E', 'W'), 180, text)?;
    let altitude = i64::from(octets.u32()?) - ALTITUDE_BASE;
    let sign = if altitude < 0 { "-" } else { "" };
    push(text, format_args!(" {sign}{}.{:02}m", altitude.abs() / 100, altitude.abs() % 100));
    for precision in precisions {
        let (mantissa, exponent) = (precision >> 4, precision & 0x0F);
        // Zero has a single text form, so only one exponent is allowed.
        if mantissa > 9 || exponent > 9 || (mantissa == 0 && exponent > 0) {
            return None;
        }
        let centimeters = u64::from(mantissa) * 10_u64.pow(u32::from(exponent));
        match centimeters % 100 {
            0 => push(text, format_args!(" {}m", centimeters / 100)),
            rest => push(text, format_args!(" {}.{rest:02}m", centimeters / 100)),
        }
    }
    Some(())
}

/// Reads an angle into thousandths of an arc second from the equator or the prime meridian.
fn read_angle(words: &mut Words<'_, '_>, sides: (char, char), max: u64) -> Result<u32, EntryError> {
    let first = words.next("angle", ANGLE_FORM)?;
    let degrees = number(first.text).filter(|degrees| *degrees <= max);
    let mut sum = degrees.ok_or_else(|| first.bad("angle", ANGLE_FORM))? * 3_600_000;
    let parts: [Part; 2] = [
        |text| number(text).filter(|minutes| *minutes < 60).map(|minutes| minutes * 60_000),
        |text| decimal(text, 3).filter(|thousandths| *thousandths < 60_000),
    ];
    let mut word = words.next("angle", ANGLE_FORM)?;
    for part in parts {
        if side(word, sides).is_some() {
            break;
        }
        sum += part(word.text).ok_or_else(|| word.bad("angle", ANGLE_FORM))?;
        word = words.next("angle", ANGLE_FORM)?;
    }
    if sum > max * 3_600_000 {
        return Err(first.bad("angle", ANGLE_FORM));
    }
    match side(word, sides) {
        Some(true) => Ok(MIDDLE + sum as u32),
        Some(false) => Ok(MIDDLE - sum as u32),
        None => Err(word.bad("angle", ANGLE_FORM)),
    }
}

type Part = fn(&[u8]) -> Option<u64>;

/// Returns true if the word is the first of two hemispheres, and `None` if it is neither.
fn side(word: ZoneFileWord<'_>, (plus, minus): (char, char)) -> Option<bool> {
    let mut characters = word.as_str().chars();
    let side = characters.next().filter(|_| characters.next().is_none())?.to_ascii_uppercase();
    if side == plus { Some(true) } else { (side == minus).then_some(false) }
}

fn write_angle(angle: u32, (plus, minus): (char, char), max: u32, text: &mut String) -> Option<()> {
    let side = if angle >= MIDDLE { plus } else { minus };
    let sum = angle.abs_diff(MIDDLE);
    if sum > max * 3_600_000 {
        return None;
    }
    let (minutes, thousandths) = (sum / 60_000, sum % 60_000);
    let (seconds, rest) = (thousandths / 1000, thousandths % 1000);
    push(text, format_args!("{} {} {seconds}.{rest:03} {side}", minutes / 60, minutes % 60));
    Some(())
}

/// Reads an altitude in meters. The wire form counts centimeters from 100 km below the reference.
fn read_altitude(word: ZoneFileWord<'_>) -> Option<u32> {
    let text = without_unit(word.text);
    let centimeters = match text.strip_prefix(b"-") {
        Some(below) => -i64::try_from(decimal(below, 2)?).ok()?,
        None => i64::try_from(decimal(text, 2)?).ok()?,
    };
    u32::try_from(ALTITUDE_BASE.checked_add(centimeters)?).ok()
}

/// Reads meters into one digit and a power of ten (RFC 1876 section 2), cutting off the rest.
fn read_precision(word: ZoneFileWord<'_>) -> Option<u8> {
    let mut mantissa = decimal(without_unit(word.text), 2)?;
    let mut exponent = 0;
    while mantissa > 9 {
        mantissa /= 10;
        exponent += 1;
    }
    (exponent <= 9).then_some((mantissa as u8) << 4 | exponent)
}

fn without_unit(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"m").or_else(|| text.strip_suffix(b"M")).unwrap_or(text)
}

fn decimal(text: &[u8], places: usize) -> Option<u64> {
    let (whole, fraction) = match text.iter().position(|octet| *octet == b'.') {
        Some(dot) => (text.get(..dot)?, text.get(dot + 1..)?),
        None => (text, &[][..]),
    };
    if fraction.len() > places {
        return None;
    }
    let scale = 10_u64.pow((places - fraction.len()) as u32);
    let fraction = if fraction.is_empty() { 0 } else { number(fraction)? * scale };
    number(whole)?.checked_mul(10_u64.pow(places as u32))?.checked_add(fraction)
}

const VERSION: u8 = 0;
const MIDDLE: u32 = 1 << 31;
/// The altitude of the reference spheroid, in centimeters.
const ALTITUDE_BASE: i64 = 10_000_000;
/// 1 m, 10 km and 10 m (RFC 1876 section 3).
const DEFAULT_PRECISIONS: [u8; 3] = [0x12, 0x16, 0x13];
const ANGLE_FORM: &str = "degrees, minutes, seconds and side such as 52 22 23.000 N (E or W for the second)";
const ALTITUDE_FORM: &str = "meters such as -2.00m, from -100000.00m to 42849672.95m";
const PRECISION_FORM: &str = "meters such as 10m, up to 90000000.00m";
