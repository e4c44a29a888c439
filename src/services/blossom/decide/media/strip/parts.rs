//! The number of parts of an image file. The library that reads the parts keeps a record of each, which is far larger than an empty
//! part: so they are counted before it reads the file, in the way in which it reads.

use img_parts::jpeg::markers::{COM, EOI, P, SOF0, SOF15, SOS};

/// Segments before the first scan of a JPEG file, or chunks of a PNG or WebP file.
pub(super) const PARTS_MAX: usize = 4_096;

/// Bytes of the signature of PNG, of what a chunk has beside its data, and of the head of a chunk of RIFF.
const PNG_SIGNATURE: usize = 8;
const PNG_FRAME: usize = 12;
const RIFF_HEAD: usize = 8;

/// Lists of RIFF within lists that the library reads.
const RIFF_DEPTH_MAX: usize = 32;

/// Whether a JPEG file has at most [`PARTS_MAX`] segments before its first scan. One that is cut off has those that are there.
#[must_use]
pub(super) fn has_few_segments(file: &[u8]) -> bool {
    let (mut rest, mut count) = (file.get(2..).unwrap_or_default(), 0);
    loop {
        let Some(place) = rest.iter().position(|byte| *byte == P) else { return true };
        let from_marker = &rest[place..];
        // Fill bytes may stand before a marker.
        let Some(filling) = from_marker.iter().position(|byte| *byte != P) else { return true };
        let marker = from_marker[filling];
        rest = &from_marker[filling + 1..];
        if marker == EOI {
            return true;
        }
        // The others have no length, and the library skips them.
        if !(SOF0..=SOF15).contains(&marker) && !(SOS..=COM).contains(&marker) {
            continue;
        }
        let Some(&[high, low]) = rest.get(..2) else { return true };
        let length = usize::from(u16::from_be_bytes([high, low]));
        count += 1;
        if count > PARTS_MAX {
            return false;
        }
        rest = match rest.get(length..) {
            Some(rest) if length >= 2 && marker != SOS => rest,
            _ => return true,
        };
    }
}

/// Whether a PNG file has at most [`PARTS_MAX`] chunks.
#[must_use]
pub(super) fn has_few_png_chunks(file: &[u8]) -> bool {
    let (mut rest, mut count) = (file.get(PNG_SIGNATURE..).unwrap_or_default(), 0);
    while let (Some(stated), Some(kind)) = (four(rest, 0), four(rest, 4)) {
        count += 1;
        if count > PARTS_MAX {
            return false;
        }
        let end = length(u32::from_be_bytes(stated)).and_then(|length| length.checked_add(PNG_FRAME));
        let Some(next) = end.and_then(|end| rest.get(end..)).filter(|_| kind != *b"IEND") else { break };
        rest = next;
    }
    true
}

/// Whether a WebP file has at most [`PARTS_MAX`] chunks, those within lists included.
#[must_use]
pub(super) fn has_few_webp_chunks(file: &[u8]) -> bool {
    let mut count = 0;
    // Of what stands after the outermost chunk nothing is read.
    riff_chunk(file, 0, &mut count);
    count <= PARTS_MAX
}

/// Counts the first chunk of `data` and those within it; returns what stands after it. `None` if it is cut off, or there are too many.
fn riff_chunk<'a>(data: &'a [u8], depth: usize, count: &mut usize) -> Option<&'a [u8]> {
    let (id, stated) = (four(data, 0)?, four(data, 4)?);
    *count += 1;
    if *count > PARTS_MAX {
        return None;
    }
    let end = length(u32::from_le_bytes(stated))?.checked_add(RIFF_HEAD)?;
    let mut content = data.get(RIFF_HEAD..end)?;
    let has_kind = matches!(&id, b"RIFF" | b"LIST");
    if depth < RIFF_DEPTH_MAX && (has_kind || id == *b"seqt") {
        if has_kind {
            content = content.get(4..)?;
        }
        while !content.is_empty() {
            content = riff_chunk(content, depth + 1, count)?;
        }
        return data.get(end..);
    }
    // Data of an odd length have one more byte.
    data.get(end + (end - RIFF_HEAD) % 2..)
}

/// The four bytes at a place.
fn four(data: &[u8], place: usize) -> Option<[u8; 4]> {
    data.get(place..)?.first_chunk().copied()
}

/// A length that a file states.
fn length(stated: u32) -> Option<usize> {
    usize::try_from(stated).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeated(begin: &[u8], part: &[u8], times: usize) -> Vec<u8> {
        [begin, &part.repeat(times)].concat()
    }

    #[test]
    fn an_image_of_very_many_empty_parts_is_found_before_it_is_read() {
        let jpeg = |times| repeated(b"\xff\xd8", b"\xff\xdb\0\x02", times);
        assert!(has_few_segments(&jpeg(PARTS_MAX)) && !has_few_segments(&jpeg(PARTS_MAX + 1)));
        // Fill bytes, markers without a length and other bytes are no segments.
        assert!(has_few_segments(&repeated(b"\xff\xd8", b"\xff\xff\xd0\0\xff\x01", 20_000)));
        let png = |times| repeated(b"\x89PNG\r\n\x1a\n", b"\0\0\0\0tEXt\0\0\0\0", times);
        assert!(has_few_png_chunks(&png(PARTS_MAX)) && !has_few_png_chunks(&png(PARTS_MAX + 1)));
        let list = |id: &[u8; 4], content: Vec<u8>| {
            let length = u32::try_from(content.len()).unwrap().to_le_bytes();
            [&id[..], &length, &content].concat()
        };
        let webp = |times| list(b"RIFF", repeated(b"WEBP", b"PRIV\0\0\0\0", times));
        assert!(has_few_webp_chunks(&webp(PARTS_MAX - 1)) && !has_few_webp_chunks(&webp(PARTS_MAX)));
        let inner = list(b"LIST", repeated(b"kind", b"PRIV\x01\0\0\0x\0", PARTS_MAX));
        assert!(!has_few_webp_chunks(&list(b"RIFF", [&b"WEBP"[..], &inner].concat())));
    }

    #[test]
    fn what_stands_after_the_picture_is_not_counted_and_a_file_that_is_cut_off_is_counted_to_its_end() {
        let empty = b"\xff\xdb\0\x02".repeat(PARTS_MAX + 1);
        for begin in [&b"\xff\xd8\xff\xd9"[..], b"\xff\xd8\xff\xda\0\x02", b"\xff\xd8\xff\xdb\0\x01"] {
            assert!(has_few_segments(&[begin, &empty].concat()), "{begin:?}");
        }
        let ended =
            repeated(b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\0\0\0\0", b"\0\0\0\0tEXt\0\0\0\0", PARTS_MAX + 1);
        assert!(has_few_png_chunks(&ended));
        for cut in [&b""[..], b"\xff", b"\xff\xd8\xff", b"\xff\xd8\xff\xdb\0", b"\xff\xd8\xff\xdb\xff\xff"] {
            assert!(has_few_segments(cut) && has_few_png_chunks(cut) && has_few_webp_chunks(cut), "{cut:?}");
        }
        assert!(has_few_webp_chunks(b"RIFF\xff\xff\xff\xffWEBP") && has_few_png_chunks(&[0xff; 40]));
    }
}
