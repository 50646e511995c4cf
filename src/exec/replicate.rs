//! Rows that end with their images: what the client gets of them, and what other shards are sent; pure.

use crate::error::{Error, Result};
use crate::plan::Images;
use crate::sqlstate::SqlState;
use crate::wire::backend::no_data;
use crate::wire::buffer::{Reader, cstring, message};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind, Subject};

/// Bytes of a column in a RowDescription behind its name.
const COLUMN_BYTES: usize = 18;

/// What the first shard has answered.
#[derive(Debug, Default)]
pub struct Evaluated {
    /// RowDescription, or NoData, and the rows for the client, as frames.
    pub description: Vec<u8>,
    /// The client's rows, as frames.
    pub rows: Vec<u8>,
    /// NoticeResponses, as frames.
    pub notices: Vec<u8>,
    /// The values of the images as a Bind message has them, one after the other.
    pub images: Vec<Vec<u8>>,
}

/// Takes the first shard's frames apart.
///
/// # Errors
/// `XX000` if they are not what the images ask for.
pub fn evaluate(frames: &[u8], images: &Images) -> Result<Evaluated> {
    let mut evaluated = Evaluated::default();
    let mut rest = frames;
    while let Some(header) = frame::header(rest)? {
        let Some((one, behind)) = rest.split_at_checked(header.frame_bytes) else {
            break;
        };
        rest = behind;
        match header.tag {
            b'T' => evaluated.description = description(frame::body(one), images)?,
            b'D' => evaluated.row(frame::body(one), images)?,
            b'N' => evaluated.notices.extend_from_slice(one),
            _ => {}
        }
    }
    Ok(evaluated)
}

impl Evaluated {
    fn row(&mut self, body: &[u8], images: &Images) -> Result<()> {
        let mut reader = Reader::new(body);
        check_count(usize::from(reader.u16()?), images)?;
        let values = reader.rest();
        for _ in 0..images.returned {
            skip(&mut reader)?;
        }
        let image = reader.rest();
        let own = values.len() - image.len();
        if images.returned > 0 {
            message(&mut self.rows, b'D', |out| {
                out.extend_from_slice(&count(images.returned));
                out.extend_from_slice(values.get(..own).unwrap_or_default());
            });
        }
        self.images.push(image.to_vec());
        Ok(())
    }
}

fn skip(reader: &mut Reader<'_>) -> Result<()> {
    if let Ok(length) = usize::try_from(reader.i32()?) {
        reader.bytes(length)?;
    }
    Ok(())
}

fn count(columns: usize) -> [u8; 2] {
    u16::try_from(columns).unwrap_or(u16::MAX).to_be_bytes()
}

fn check_count(columns: usize, images: &Images) -> Result<()> {
    match columns == images.returned + images.types.len() {
        true => Ok(()),
        false => Err(Error::new(
            SqlState::INTERNAL_ERROR,
            "the first shard returned other columns than were asked for",
        )
        .hint("The table's definition may have just changed: try again.")),
    }
}

/// The description of the client's own columns.
fn description(body: &[u8], images: &Images) -> Result<Vec<u8>> {
    let mut reader = Reader::new(body);
    check_count(usize::from(reader.u16()?), images)?;
    let columns = reader.rest();
    for _ in 0..images.returned {
        reader.cstring()?;
        reader.bytes(COLUMN_BYTES)?;
    }
    let own = columns.len() - reader.rest().len();
    let mut out = Vec::new();
    match images.returned {
        0 => no_data(&mut out),
        returned => message(&mut out, b'T', |out| {
            out.extend_from_slice(&count(returned));
            out.extend_from_slice(columns.get(..own).unwrap_or_default());
        }),
    }
    Ok(out)
}

/// Appends what the first shard is sent: the statement with its images, up to its Sync. `bind` has the
/// client's parameters and result formats.
///
/// # Errors
/// `08P01` if the client asks for other formats than there are columns.
pub fn write_evaluation(
    out: &mut Vec<u8>,
    (text, types): (&[u8], &[u32]),
    bind: &Bind<'_>,
    images: &Images,
) -> Result<()> {
    let results = results(bind.results, images)?;
    frontend::write_parse(out, b"", text, types);
    message(out, b'B', |body| {
        cstring(body, b"");
        cstring(body, b"");
        body.extend_from_slice(&count(bind.formats.len() / 2));
        body.extend_from_slice(bind.formats);
        body.extend_from_slice(&bind.count.to_be_bytes());
        body.extend_from_slice(bind.values);
        body.extend_from_slice(&count(results.len() / 2));
        body.extend_from_slice(&results);
    });
    describe_and_execute(out);
    frontend::write_sync(out);
    Ok(())
}

/// The formats of all columns: the client's as it wants them, those of the images as they travel.
fn results(wanted: &[u8], images: &Images) -> Result<Vec<u8>> {
    let (codes, returned) = (wanted.as_chunks::<2>().0, images.returned);
    let mut all: Vec<[u8; 2]> = match codes {
        [] => vec![[0, 0]; returned],
        [one] => vec![*one; returned],
        each if each.len() == returned => each.to_vec(),
        each => {
            let (formats, columns) = (each.len(), returned);
            return Err(Error::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {formats} result formats but query has {columns} columns"
                ),
            ));
        }
    };
    all.extend(formats(images));
    Ok(all.concat())
}

/// The formats in which the columns of an image travel.
fn formats(images: &Images) -> impl Iterator<Item = [u8; 2]> + '_ {
    images.types.iter().map(|oid| [0, u8::from(*oid != 0)])
}

fn describe_and_execute(out: &mut Vec<u8>) {
    frontend::write_subject(out, b'D', Subject::Portal, b"");
    frontend::write_execute(out, b"", 0);
}

/// Appends what the other shards are sent: one statement for each image, up to the Sync.
pub fn write_images(out: &mut Vec<u8>, images: &Images, rows: &[Vec<u8>], apply: &[u8]) {
    frontend::write_parse(out, b"", apply, &images.types);
    let formats = formats(images).collect::<Vec<_>>().concat();
    for (index, row) in rows.iter().enumerate() {
        message(out, b'B', |body| {
            cstring(body, b"");
            cstring(body, b"");
            body.extend_from_slice(&count(images.types.len()));
            body.extend_from_slice(&formats);
            body.extend_from_slice(&count(images.types.len()));
            body.extend_from_slice(row);
            body.extend_from_slice(&count(0));
        });
        match index {
            // Nothing passes before it is described.
            0 => describe_and_execute(out),
            _ => frontend::write_execute(out, b"", 0),
        }
    }
    frontend::write_sync(out);
}
