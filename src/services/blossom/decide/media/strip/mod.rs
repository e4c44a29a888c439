//! Removes from an image what tells of places, people and devices. The picture itself is not decoded, so nothing of it is lost and
//! nothing has to be inflated.
//!
//! What is known to belong to the picture stays; everything else goes. Of EXIF only the orientation is kept, in a block of its own, so
//! that the picture stays upright.

mod parts;

use img_parts::jpeg::{Jpeg, JpegSegment, markers};
use img_parts::png::{Png, PngChunk};
use img_parts::riff::RiffContent;
use img_parts::webp::{
    CHUNK_ALPH, CHUNK_ANIM, CHUNK_ANMF, CHUNK_ICCP, CHUNK_VP8, CHUNK_VP8L, CHUNK_VP8X, WebP,
};
use img_parts::{Bytes, Error, ImageEXIF};

use super::jpeg::scans;
use parts::{has_few_png_chunks, has_few_segments, has_few_webp_chunks};

/// Chunks of PNG that belong to the picture.
const PNG_CHUNKS: &[[u8; 4]] = &[
    *b"IHDR", *b"PLTE", *b"IDAT", *b"IEND", *b"tRNS", *b"cHRM", *b"gAMA", *b"iCCP", *b"sBIT", *b"sRGB",
    *b"cICP", *b"mDCV", *b"cLLI", *b"bKGD", *b"hIST", *b"pHYs", *b"sPLT", *b"acTL", *b"fcTL", *b"fdAT",
];

/// Chunks of WebP that belong to the picture.
const WEBP_CHUNKS: [[u8; 4]; 7] =
    [CHUNK_VP8X, CHUNK_ICCP, CHUNK_ANIM, CHUNK_ANMF, CHUNK_ALPH, CHUNK_VP8, CHUNK_VP8L];

/// Flags in the first byte of `VP8X` that say that there are EXIF and XMP.
const WEBP_FLAGS: u8 = 0b0000_1100;

/// The tag of EXIF for the orientation, and the type of its value, 16 bits.
const ORIENTATION: u16 = 0x0112;
const SHORT: u16 = 3;

/// Entries of EXIF's first directory that are looked at.
const EXIF_ENTRIES_MAX: u16 = 512;

/// An image without metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripped {
    /// The file.
    pub content: Bytes,
    /// Its media type.
    pub media_type: &'static str,
}

/// Why metadata was not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStripped {
    /// It is none of the formats of which the parts are known.
    #[error("metadata can be removed from JPEG, PNG and WebP images only: send other files to /upload")]
    OtherFormat,
    /// It is broken, or has far more parts than images have.
    #[error("the image cannot be read")]
    Broken,
}

/// Removes the metadata of an image. `content` is the file.
///
/// # Errors
/// [`NotStripped`].
pub fn strip(content: Bytes) -> Result<Stripped, NotStripped> {
    let broken = |_: Error| NotStripped::Broken;
    match super::sniffed_type(&content) {
        Some("image/jpeg") if has_few_segments(&content) => {
            let content = strip_jpeg(Jpeg::from_bytes(content).map_err(broken)?)?;
            Ok(Stripped { content, media_type: "image/jpeg" })
        }
        Some("image/png" | "image/apng") if has_few_png_chunks(&content) => {
            let content = strip_png(Png::from_bytes(content).map_err(broken)?)?;
            Ok(Stripped { content, media_type: "image/png" })
        }
        Some("image/webp") if has_few_webp_chunks(&content) => {
            let content = strip_webp(WebP::from_bytes(content).map_err(broken)?)?;
            Ok(Stripped { content, media_type: "image/webp" })
        }
        Some("image/jpeg" | "image/png" | "image/apng" | "image/webp") => Err(NotStripped::Broken),
        _ => Err(NotStripped::OtherFormat),
    }
}

fn strip_jpeg(mut jpeg: Jpeg) -> Result<Bytes, NotStripped> {
    let exif = jpeg.exif().and_then(|exif| upright(&exif));
    let last = jpeg.segments_mut().pop().filter(|last| last.marker() == markers::SOS);
    let last = last.ok_or(NotStripped::Broken)?;
    jpeg.segments_mut().retain(is_of_picture);
    let entropy = last.clone().encoder().bytes();
    let head = last.len();
    let data = entropy.get(head..).and_then(scans).ok_or(NotStripped::Broken)?;
    let last = JpegSegment::new_with_entropy(markers::SOS, last.contents().clone(), data.into());
    jpeg.segments_mut().push(last);
    jpeg.set_exif(exif);
    Ok(jpeg.encoder().bytes())
}

/// Whether a segment before the first scan belongs to the picture.
fn is_of_picture(segment: &JpegSegment) -> bool {
    match segment.marker() {
        markers::APP0 => segment.contents().starts_with(b"JFIF\0"),
        markers::APP2 => segment.contents().starts_with(b"ICC_PROFILE\0"),
        // Says how colours are coded.
        markers::APP14 => segment.contents().starts_with(b"Adobe"),
        markers::APP1..=markers::APP15 | markers::COM => false,
        _ => true,
    }
}

fn strip_png(mut png: Png) -> Result<Bytes, NotStripped> {
    if png.chunks().last().map(PngChunk::kind) != Some(*b"IEND") {
        return Err(NotStripped::Broken);
    }
    let exif = png.exif().and_then(|exif| upright(&exif));
    png.chunks_mut().retain(|chunk| PNG_CHUNKS.contains(&chunk.kind()));
    if exif.is_some() {
        png.set_exif(exif);
    }
    Ok(png.encoder().bytes())
}

fn strip_webp(mut webp: WebP) -> Result<Bytes, NotStripped> {
    let has_picture = [CHUNK_VP8, CHUNK_VP8L, CHUNK_ANMF].iter().any(|id| webp.has_chunk(*id));
    if !has_picture {
        return Err(NotStripped::Broken);
    }
    let exif = webp.exif().and_then(|exif| upright(&exif));
    webp.chunks_mut().retain(|chunk| WEBP_CHUNKS.contains(&chunk.id()));
    for chunk in webp.chunks_mut() {
        if chunk.id() == CHUNK_VP8X
            && let RiffContent::Data(data) = chunk.content_mut()
            && let [flags, rest @ ..] = &data[..]
        {
            *data = [&[flags & !WEBP_FLAGS][..], rest].concat().into();
        }
    }
    if exif.is_some() {
        webp.set_exif(exif);
    }
    Ok(webp.encoder().bytes())
}

/// EXIF with nothing but the orientation; `None` of a picture that is upright, or says nothing about it.
fn upright(exif: &[u8]) -> Option<Bytes> {
    let orientation = orientation(exif)?;
    if !(2..=8).contains(&orientation) {
        return None;
    }
    // Header, a directory at offset 8 with one entry (tag, type, count 1, value), and no further directory.
    let mut block = b"MM\0*\0\0\0\x08\0\x01".to_vec();
    block.extend_from_slice(&ORIENTATION.to_be_bytes());
    block.extend_from_slice(&SHORT.to_be_bytes());
    block.extend_from_slice(&[0, 0, 0, 1]);
    block.extend_from_slice(&orientation.to_be_bytes());
    block.extend_from_slice(&[0; 6]);
    Some(block.into())
}

/// The orientation that EXIF states.
fn orientation(exif: &[u8]) -> Option<u16> {
    let is_big = match exif.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let short = |place: usize| {
        let two = exif.get(place..place.checked_add(2)?)?.try_into().ok()?;
        Some(if is_big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
    };
    let four = exif.get(4..8)?.try_into().ok()?;
    let first = if is_big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) };
    let first = usize::try_from(first).ok()?;
    let count = short(first)?.min(EXIF_ENTRIES_MAX);
    (0..usize::from(count)).find_map(|number| {
        let entry = first.checked_add(2 + 12 * number)?;
        (short(entry)? == ORIENTATION && short(entry.checked_add(2)?)? == SHORT)
            .then(|| short(entry + 8))
            .flatten()
    })
}

#[cfg(test)]
mod tests;
