//! The messages of a login, from either side: authentication requests, proofs and server reports.
//!
//! Source: PostgreSQL documentation, 55.2.1 (Start-up), 55.3 (SASL), 55.8 (Error Fields).

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;
use crate::wire::buffer::{Reader, cstring, message};

/// The name of SCRAM without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The name of SCRAM with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// What a server asks of the one who logs in (message `R`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Nothing more: the login has succeeded.
    Ok,
    /// The password in clear text.
    Cleartext,
    /// The password hashed with MD5, the user's name and this salt.
    Md5([u8; 4]),
    /// One of these SASL mechanisms, in the server's order of preference.
    Sasl(Vec<&'a str>),
    /// The next step of SASL.
    SaslContinue(&'a [u8]),
    /// The last step of SASL.
    SaslFinal(&'a [u8]),
    /// Something else, by its code.
    Other(i32),
}

const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// Appends an authentication request.
pub fn request(out: &mut Vec<u8>, request: &Request<'_>) {
    message(out, b'R', |body| {
        let code = match request {
            Request::Ok => OK,
            Request::Cleartext => CLEARTEXT,
            Request::Md5(_) => MD5,
            Request::Sasl(_) => SASL,
            Request::SaslContinue(_) => SASL_CONTINUE,
            Request::SaslFinal(_) => SASL_FINAL,
            Request::Other(code) => *code,
        };
        body.extend_from_slice(&code.to_be_bytes());
        match request {
            Request::Md5(salt) => body.extend_from_slice(salt),
            Request::Sasl(mechanisms) => {
                for mechanism in mechanisms {
                    cstring(body, mechanism.as_bytes());
                }
                body.push(0);
            }
            Request::SaslContinue(data) | Request::SaslFinal(data) => body.extend_from_slice(data),
            Request::Ok | Request::Cleartext | Request::Other(_) => {}
        }
    });
}

/// Reads the body of an authentication request.
///
/// # Errors
/// `08P01` if it is malformed.
pub fn parse_request(body: &[u8]) -> Result<Request<'_>> {
    let mut reader = Reader::new(body);
    let code = reader.i32()?;
    let request = match code {
        OK => Request::Ok,
        CLEARTEXT => Request::Cleartext,
        MD5 => {
            let salt = reader.bytes(4)?.first_chunk().copied();
            Request::Md5(salt.unwrap_or_default())
        }
        SASL => Request::Sasl(mechanisms(&mut reader)?),
        SASL_CONTINUE => return Ok(Request::SaslContinue(reader.rest())),
        SASL_FINAL => return Ok(Request::SaslFinal(reader.rest())),
        other => return Ok(Request::Other(other)),
    };
    reader.end()?;
    Ok(request)
}

fn mechanisms<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a str>> {
    let mut mechanisms = Vec::new();
    loop {
        let name = reader.cstring()?;
        if name.is_empty() {
            return Ok(mechanisms);
        }
        mechanisms.push(utf8(name)?);
    }
}

/// Appends PasswordMessage: a password, clear or hashed.
pub fn password(out: &mut Vec<u8>, password: &[u8]) {
    message(out, b'p', |body| cstring(body, password));
}

/// Reads the body of PasswordMessage.
///
/// # Errors
/// `08P01` if it is malformed.
pub fn parse_password(body: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader::new(body);
    let password = reader.cstring()?;
    reader
        .end()
        .map_err(|_| Error::protocol("invalid password packet size"))?;
    Ok(password)
}

/// Appends SASLInitialResponse: the mechanism chosen and its first step.
pub fn sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    message(out, b'p', |body| {
        cstring(body, mechanism.as_bytes());
        let length = i32::try_from(data.len()).unwrap_or(i32::MAX);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(data);
    });
}

/// Reads the body of SASLInitialResponse: the mechanism and its first step.
///
/// # Errors
/// `08P01` if it is malformed or has no first step (the mechanisms we offer all have one).
pub fn parse_sasl_initial_response(body: &[u8]) -> Result<(&str, &[u8])> {
    let mut reader = Reader::new(body);
    let mechanism = utf8(reader.cstring()?)?;
    let length = usize::try_from(reader.i32()?)
        .map_err(|_| Error::protocol("malformed SCRAM message").detail("The message is empty."))?;
    let data = reader.bytes(length)?;
    reader.end()?;
    Ok((mechanism, data))
}

/// Appends SASLResponse: the next step of SASL.
pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    message(out, b'p', |body| body.extend_from_slice(data));
}

/// Reads the body of ErrorResponse or NoticeResponse into an error that leaves the session alive.
///
/// Fields that the proxy does not carry (file, line, routine …) are dropped.
///
/// # Errors
/// `08P01` if it is malformed.
pub fn parse_report(body: &[u8]) -> Result<Error> {
    let mut reader = Reader::new(body);
    let mut code = None;
    let mut message = None;
    let mut detail = None;
    let mut hint = None;
    let mut position = None;
    loop {
        let field = reader.u8()?;
        if field == 0 {
            break;
        }
        let value = reader.cstring()?;
        match field {
            b'C' => code = SqlState::from_bytes(value),
            b'M' => message = Some(lossy(value)),
            b'D' => detail = Some(lossy(value)),
            b'H' => hint = Some(lossy(value)),
            b'P' => position = lossy(value).parse().ok(),
            _ => {}
        }
    }
    let mut error = Error::new(
        code.unwrap_or(SqlState::CONNECTION_FAILURE),
        message.unwrap_or_else(|| "missing error text".to_owned()),
    );
    if let Some(detail) = detail {
        error = error.detail(detail);
    }
    if let Some(hint) = hint {
        error = error.hint(hint);
    }
    if let Some(position) = position {
        error = error.position(position);
    }
    Ok(error)
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn utf8(text: &[u8]) -> Result<&str> {
    std::str::from_utf8(text).map_err(|_| Error::protocol("invalid string in message"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::backend;

    fn body(out: &[u8]) -> &[u8] {
        &out[5..]
    }

    #[test]
    fn requests_read_back() {
        for sent in [
            Request::Ok,
            Request::Cleartext,
            Request::Md5([1, 2, 3, 4]),
            Request::Sasl(vec![SCRAM_SHA_256_PLUS, SCRAM_SHA_256]),
            Request::SaslContinue(b"r=1"),
            Request::SaslFinal(b"v=1"),
            Request::Other(7),
        ] {
            let mut out = Vec::new();
            request(&mut out, &sent);
            assert_eq!(out[0], b'R');
            assert_eq!(parse_request(body(&out)).unwrap(), sent);
        }
    }

    #[test]
    fn proofs_read_back() {
        let mut out = Vec::new();
        password(&mut out, b"secret");
        assert_eq!(parse_password(body(&out)).unwrap(), b"secret");
        assert!(parse_password(b"secret").is_err());
        assert!(parse_password(b"secret\0x").is_err());

        let mut out = Vec::new();
        sasl_initial_response(&mut out, SCRAM_SHA_256, b"n,,n=,r=1");
        assert_eq!(
            parse_sasl_initial_response(body(&out)).unwrap(),
            (SCRAM_SHA_256, b"n,,n=,r=1".as_slice())
        );
        assert!(parse_sasl_initial_response(b"SCRAM-SHA-256\0\xff\xff\xff\xff").is_err());
        assert!(parse_sasl_initial_response(b"SCRAM-SHA-256\0\0\0\0\x05abcd").is_err());
    }

    #[test]
    fn reports_keep_code_message_detail_and_hint() {
        let sent = Error::new(SqlState::INVALID_PASSWORD, "no")
            .detail("D.")
            .hint("H.");
        let mut out = Vec::new();
        backend::error_response(&mut out, &sent);
        let error = parse_report(body(&out)).unwrap();
        assert_eq!(error.to_string(), sent.to_string());
        assert!(parse_report(b"Mno\0").is_err());
        assert_eq!(
            parse_report(b"Mno\0\0").unwrap().code(),
            SqlState::CONNECTION_FAILURE
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..64), code in 0..13_i32) {
            let _ = parse_request(&[&code.to_be_bytes(), body.as_slice()].concat());
            let _ = parse_request(&body);
            let _ = parse_password(&body);
            let _ = parse_sasl_initial_response(&body);
            let _ = parse_report(&body);
        }
    }
}
