//! The encodings that clients send texts in, read as PostgreSQL reads them.
//!
//! PostgreSQL converts a text to the server's encoding before it looks for tokens, so the second byte of
//! a Shift JIS character is never a backslash. Single-byte encodings are converted here too, exactly.
//! Of the others only the borders between characters are known: enough for tokens, not for keys.

use std::borrow::Cow;

use encoding_rs as table;

/// An encoding of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, the servers' own; `SQL_ASCII` means the same to a server whose encoding is UTF-8.
    #[default]
    Utf8,
    /// ISO 8859-1: bytes are code points.
    Latin1,
    /// ISO 8859-9: Windows-1254 without its characters below 0xA0.
    Latin5,
    /// KOI8-U, but two bytes that PostgreSQL reads as in KOI8-R.
    Koi8U,
    /// One byte per character, by the table of the WHATWG encoding of this name.
    Single(&'static table::Encoding),
    /// Several bytes per character, of which only the number is known.
    Wide(Wide),
    /// Not known.
    Unknown,
}

/// How many bytes the characters of an encoding have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wide {
    /// `EUC_JP`, `EUC_KR`, `EUC_JIS_2004`, `JOHAB`.
    Euc,
    /// `EUC_TW`.
    EucTw,
    /// `EUC_CN`, `BIG5`, `GBK`, `UHC`.
    Pairs,
    /// `SJIS`, `SHIFT_JIS_2004`.
    Sjis,
    /// `GB18030`.
    Gb18030,
}

/// What takes the place of characters that are not known: one private one for each, or two.
const PRIVATE_BYTE: u32 = 0xE000;
const PRIVATE_PAIR: u32 = 0xF_0000;
const PRIVATE_SECOND: u32 = 0x10_0000;

impl Encoding {
    /// The encoding of this name, spelled as PostgreSQL accepts it.
    pub fn named(name: &str) -> Encoding {
        let mut name = name.to_ascii_lowercase();
        name.retain(|letter| letter.is_ascii_alphanumeric());
        let single = match name.as_str() {
            "utf8" | "unicode" | "sqlascii" => return Encoding::Utf8,
            "latin1" | "iso88591" => return Encoding::Latin1,
            "latin5" | "iso88599" => return Encoding::Latin5,
            "koi8u" => return Encoding::Koi8U,
            "eucjp" | "eucjis2004" | "euckr" | "johab" => return Encoding::Wide(Wide::Euc),
            "euctw" => return Encoding::Wide(Wide::EucTw),
            "euccn" | "big5" | "win950" | "windows950" | "gbk" | "win936" | "windows936"
            | "uhc" | "win949" | "windows949" => return Encoding::Wide(Wide::Pairs),
            "sjis" | "mskanji" | "shiftjis" | "win932" | "windows932" | "shiftjis2004" => {
                return Encoding::Wide(Wide::Sjis);
            }
            "gb18030" => return Encoding::Wide(Wide::Gb18030),
            "latin2" | "iso88592" => table::ISO_8859_2,
            "latin3" | "iso88593" => table::ISO_8859_3,
            "latin4" | "iso88594" => table::ISO_8859_4,
            "latin6" | "iso885910" => table::ISO_8859_10,
            "latin7" | "iso885913" => table::ISO_8859_13,
            "latin8" | "iso885914" => table::ISO_8859_14,
            "latin9" | "iso885915" => table::ISO_8859_15,
            "latin10" | "iso885916" => table::ISO_8859_16,
            "iso88595" => table::ISO_8859_5,
            "iso88596" => table::ISO_8859_6,
            "iso88597" => table::ISO_8859_7,
            "iso88598" => table::ISO_8859_8,
            "win1250" | "windows1250" => table::WINDOWS_1250,
            "win1251" | "windows1251" | "win" => table::WINDOWS_1251,
            "win1252" | "windows1252" => table::WINDOWS_1252,
            "win1253" | "windows1253" => table::WINDOWS_1253,
            "win1254" | "windows1254" => table::WINDOWS_1254,
            "win1255" | "windows1255" => table::WINDOWS_1255,
            "win1256" | "windows1256" => table::WINDOWS_1256,
            "win1257" | "windows1257" => table::WINDOWS_1257,
            "win1258" | "windows1258" => table::WINDOWS_1258,
            "win866" | "windows866" | "alt" => table::IBM866,
            "win874" | "windows874" => table::WINDOWS_874,
            "koi8r" | "koi8" => table::KOI8_R,
            _ => return Encoding::Unknown,
        };
        Encoding::Single(single)
    }

    /// Whether texts are taken as they are.
    pub fn is_utf8(self) -> bool {
        self == Encoding::Utf8
    }

    /// Whether [`Encoding::read`] gives the characters that the client means.
    pub fn is_exact(self) -> bool {
        !matches!(self, Encoding::Wide(_) | Encoding::Unknown)
    }

    /// A number that no other encoding has.
    pub fn fingerprint(self) -> u8 {
        match self {
            Encoding::Utf8 => 0,
            Encoding::Latin1 => 1,
            Encoding::Latin5 => 2,
            Encoding::Koi8U => 3,
            Encoding::Unknown => 4,
            Encoding::Wide(wide) => 5 + wide as u8,
            Encoding::Single(single) => {
                let sum = single.name().bytes().fold(0_u8, u8::wrapping_add);
                sum | 0x80
            }
        }
    }

    /// A text in UTF-8, with ASCII where it has ASCII; none if it can't be read. Unless the encoding is
    /// exact, characters beyond ASCII stand for others, different ones for different ones.
    pub fn read(self, text: &[u8]) -> Option<Cow<'_, str>> {
        if self.is_utf8() || text.is_ascii() {
            return std::str::from_utf8(text).ok().map(Cow::Borrowed);
        }
        match self {
            Encoding::Utf8 | Encoding::Unknown => None,
            Encoding::Wide(wide) => wide.read(text).map(Cow::Owned),
            _ => text
                .iter()
                .map(|byte| self.character(*byte))
                .collect::<Option<String>>()
                .map(Cow::Owned),
        }
    }

    /// A text in this encoding; none if it can't be written.
    pub fn write(self, text: &str) -> Option<Cow<'_, [u8]>> {
        if self.is_utf8() || text.is_ascii() {
            return Some(Cow::Borrowed(text.as_bytes()));
        }
        if !self.is_exact() {
            return None;
        }
        let byte = |letter: char| match u8::try_from(letter) {
            Ok(byte) if byte.is_ascii() => Some(byte),
            _ => (0x80..=0xFF).find(|byte| self.character(*byte) == Some(letter)),
        };
        text.chars()
            .map(byte)
            .collect::<Option<Vec<u8>>>()
            .map(Cow::Owned)
    }

    /// The character of a byte in a single-byte encoding.
    fn character(self, byte: u8) -> Option<char> {
        if byte.is_ascii() {
            return Some(char::from(byte));
        }
        let single = match self {
            Encoding::Latin1 => return Some(char::from(byte)),
            Encoding::Latin5 if byte < 0xA0 => return Some(char::from(byte)),
            Encoding::Latin5 => table::WINDOWS_1254,
            Encoding::Koi8U if matches!(byte, 0xAE | 0xBE) => table::KOI8_R,
            Encoding::Koi8U => table::KOI8_U,
            Encoding::Single(single) => single,
            Encoding::Utf8 | Encoding::Wide(_) | Encoding::Unknown => return None,
        };
        let bytes = [byte];
        let read = single.decode_without_bom_handling_and_without_replacement(&bytes)?;
        read.chars().next()
    }
}

impl Wide {
    /// The bytes of the character that begins with these two, of which the second may be missing.
    fn length(self, first: u8, second: Option<u8>) -> usize {
        match (self, first) {
            (_, 0..=0x7F) | (Wide::Sjis, 0xA1..=0xDF) => 1,
            (Wide::Euc | Wide::EucTw, 0x8F) => 3,
            (Wide::EucTw, 0x8E) => 4,
            (Wide::Gb18030, _) if second.is_some_and(|byte| byte.is_ascii_digit()) => 4,
            _ => 2,
        }
    }

    fn read(self, mut text: &[u8]) -> Option<String> {
        let mut out = String::with_capacity(text.len() * 2);
        while let [first, rest @ ..] = text {
            let length = self.length(*first, rest.first().copied());
            let (bytes, behind) = text.split_at_checked(length)?;
            let pair = |high: u8, low: u8| u32::from(high) << 8 | u32::from(low);
            match *bytes {
                [byte] if byte.is_ascii() => out.push(char::from(byte)),
                [byte] => out.push(char::from_u32(PRIVATE_BYTE + u32::from(byte))?),
                [a, b] => out.push(private(PRIVATE_PAIR + pair(a, b))?),
                [_, b, c] => out.push(private(PRIVATE_SECOND + pair(b, c))?),
                [a, b, c, d] => {
                    out.push(private(PRIVATE_PAIR + pair(a, b))?);
                    out.push(private(PRIVATE_SECOND + pair(c, d))?);
                }
                _ => return None,
            }
            text = behind;
        }
        Some(out)
    }
}

/// The private character of a number; none for the two last of a plane, which are none.
fn private(number: u32) -> Option<char> {
    char::from_u32(number).filter(|_| number & 0xFFFE != 0xFFFE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_as_postgresql_reads_them() {
        for (name, encoding) in [
            ("UTF-8", Encoding::Utf8),
            ("sql_ascii", Encoding::Utf8),
            ("ISO_8859_1", Encoding::Latin1),
            ("latin-1", Encoding::Latin1),
            ("Windows-1252", Encoding::Single(table::WINDOWS_1252)),
            ("SHIFT_JIS_2004", Encoding::Wide(Wide::Sjis)),
            ("klingon", Encoding::Unknown),
        ] {
            assert_eq!(Encoding::named(name), encoding, "{name}");
        }
    }

    #[test]
    fn single_bytes_become_their_characters() {
        let read = |name, text| Encoding::named(name).read(text).map(Cow::into_owned);
        assert_eq!(read("latin1", b"gr\xf6\xdfe \x80").unwrap(), "größe \u{80}");
        assert_eq!(read("win1252", b"\x80uro").unwrap(), "€uro");
        assert_eq!(read("latin9", b"\xa4uro").unwrap(), "€uro");
        assert_eq!(read("latin5", b"\xfd\x85").unwrap(), "ı\u{85}");
        assert_eq!(read("koi8r", b"\xc1").unwrap(), "а");
        assert_eq!(read("utf8", b"\xf6"), None);
        assert_eq!(read("klingon", b"\xf6"), None);
        assert_eq!(read("klingon", b"q").unwrap(), "q");
    }

    /// The second bytes of these are a backslash, a brace, a digit.
    #[test]
    fn ascii_within_a_character_is_none() {
        for (name, text) in [
            ("sjis", &b"'\x83\x5c'"[..]),
            ("big5", b"'\xa5\x5c'"),
            ("gbk", b"'\xd5\x5c'"),
            ("gb18030", b"'\x81\x30\x89\x38'"),
            ("euc_tw", b"'\x8e\xa1\xa1\xa1'"),
            ("euc_jp", b"'\x8f\xa1\xa1'"),
            ("sjis", b"'\xb1'"),
        ] {
            let read = Encoding::named(name).read(text).unwrap();
            let inner = read
                .strip_prefix('\'')
                .and_then(|rest| rest.strip_suffix('\''));
            assert!(
                inner.unwrap().chars().all(|letter| !letter.is_ascii()),
                "{name} {read:?}"
            );
        }
        assert_eq!(Encoding::named("sjis").read(b"a\x83"), None);
    }

    proptest! {
        #[test]
        fn what_is_read_exactly_is_written_back(bytes: Vec<u8>, which in 0..4_usize) {
            let name = ["latin1", "latin5", "win1252", "koi8u"][which];
            let encoding = Encoding::named(name);
            if let Some(text) = encoding.read(&bytes) {
                let written = encoding.write(&text);
                prop_assert_eq!(written.as_deref(), Some(&*bytes));
            }
        }

        #[test]
        fn different_texts_stay_different(a: Vec<u8>, b: Vec<u8>, which in 0..4_usize) {
            let name = ["sjis", "gb18030", "euc_tw", "big5"][which];
            let encoding = Encoding::named(name);
            if let (Some(read_a), Some(read_b)) = (encoding.read(&a), encoding.read(&b)) {
                prop_assert_eq!(a == b, read_a == read_b);
            }
        }
    }
}
