//! Words in lower case, eight bytes at a time, and which of them matter to a shape.

/// What an unquoted word means to the scan of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    /// Nothing.
    No,
    /// Starts a statement whose literals are lifted.
    Query,
    /// Ends an `ORDER BY`, `GROUP BY` or `LIMIT` clause.
    ClauseEnd,
    As,
    Atomic,
    Begin,
    By,
    Case,
    Create,
    Distinct,
    End,
    From,
    Limit,
    On,
    OrderOrGroup,
    OrReplace,
    Routine,
    /// A type whose parentheses hold a length or precision.
    TypeName,
}

/// The first up to eight bytes of a word in lower case, behind them zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head(u64);

impl Head {
    /// The head of the word of `length` bytes that `text` starts with.
    #[inline]
    pub fn new(text: &[u8], length: usize) -> Head {
        let bytes = match text.first_chunk::<8>() {
            Some(bytes) => *bytes,
            None => at_end(text),
        };
        let unused = 64 - 8 * length.clamp(1, 8) as u32;
        Head(lower(u64::from_le_bytes(bytes) & (u64::MAX >> unused)))
    }

    /// The bytes.
    #[inline]
    pub fn bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }
}

#[cold]
fn at_end(text: &[u8]) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes
        .iter_mut()
        .zip(text)
        .for_each(|(to, from)| *to = *from);
    bytes
}

/// Eight bytes with the ASCII capitals among them in lower case.
#[inline]
fn lower(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = bytes & (0x7F * EACH);
    // The top bit of each byte tells: from A on; beyond Z; not ASCII.
    let from_a = low + (0x80 - b'A' as u64) * EACH;
    let beyond_z = low + (0x7F - b'Z' as u64) * EACH;
    let capital = from_a & !beyond_z & !bytes & (0x80 * EACH);
    bytes | (capital >> 2)
}

/// The head of a word written in lower case.
const fn head_of(word: &str) -> u64 {
    let bytes = word.as_bytes();
    let mut head = 0;
    let mut at = 0;
    while at < bytes.len() && at < 8 {
        head |= (bytes[at] as u64) << (8 * at);
        at += 1;
    }
    head
}

macro_rules! keywords {
    ($head:expr, $($($word:literal)|+ => $keyword:ident;)*) => {
        match $head {
            $(value if $(value == const { head_of($word) })||+ => Keyword::$keyword,)*
            _ => Keyword::No,
        }
    };
}

impl Keyword {
    /// What `word`, which has this head, means.
    #[inline]
    pub fn of(head: Head, word: &[u8]) -> Keyword {
        match word.len() {
            2 => keywords! { head.0,
                "as" => As;
                "by" => By;
                "on" => On;
                "or" => OrReplace;
            },
            3 => keywords! { head.0,
                "bit" | "dec" => TypeName;
                "end" => End;
                "for" => ClauseEnd;
            },
            4 => keywords! { head.0,
                "from" => From;
                "case" => Case;
                "into" => ClauseEnd;
                "with" => Query;
                "char" | "time" => TypeName;
            },
            5 => keywords! { head.0,
                "order" | "group" => OrderOrGroup;
                "limit" | "fetch" => Limit;
                "where" | "union" => ClauseEnd;
                "begin" => Begin;
                "table" | "merge" => Query;
                "float" | "nchar" => TypeName;
            },
            6 => keywords! { head.0,
                "select" | "insert" | "update" | "delete" | "values" => Query;
                "having" | "window" | "except" => ClauseEnd;
                "offset" => Limit;
                "atomic" => Atomic;
                "create" => Create;
                "bpchar" => TypeName;
            },
            7 => keywords! { head.0,
                "execute" => Query;
                "replace" => OrReplace;
                "decimal" | "numeric" | "varchar" | "varying" => TypeName;
            },
            8 => keywords! { head.0,
                "distinct" => Distinct;
                "function" => Routine;
                "interval" => TypeName;
            },
            9 => match word.get(8).map(u8::to_ascii_lowercase) {
                Some(b't') => keywords! { head.0, "intersect" => ClauseEnd; },
                Some(b'g') => keywords! { head.0, "returning" => ClauseEnd; },
                Some(b'e') => keywords! { head.0, "procedure" => Routine; },
                Some(b'p') => keywords! { head.0, "timestamp" => TypeName; },
                Some(b'r') => keywords! { head.0, "character" => TypeName; },
                _ => Keyword::No,
            },
            _ => Keyword::No,
        }
    }
}
