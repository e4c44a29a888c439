//! The end of a JPEG file, which the library for its parts keeps as one piece: scans, the tables between them, and what
//! cameras append, such as a second picture with its own places and names, or a video.

use img_parts::jpeg::markers::{APP0, APP15, COM, EOI, P, RST0, RST7, SOI, Z};

/// The data from the first scan to the end of the image, without comments and application data. `None` if the image does not end.
#[must_use]
pub(super) fn scans(data: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(data.len());
    let mut rest = data;
    loop {
        let place = rest.iter().position(|byte| *byte == P)?;
        let (scan, from_marker) = rest.split_at(place);
        kept.extend_from_slice(scan);
        let marker = *from_marker.get(1)?;
        match marker {
            // Fill bytes may stand before a marker.
            P => rest = &from_marker[1..],
            // Part of the scan: a stuffed byte, or a restart.
            Z | RST0..=RST7 => {
                kept.extend_from_slice(&from_marker[..2]);
                rest = &from_marker[2..];
            }
            EOI => {
                kept.extend_from_slice(&from_marker[..2]);
                return Some(kept);
            }
            // The beginning of another image before the end of this one.
            SOI => return None,
            _ => {
                let length = from_marker.get(2..4)?;
                let end = 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                let segment = from_marker.get(..end).filter(|segment| segment.len() >= 4)?;
                if marker != COM && !(APP0..=APP15).contains(&marker) {
                    kept.extend_from_slice(segment);
                }
                rest = &from_marker[end..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_after_the_end_of_the_image_is_dropped() {
        let scan = b"\x01\xff\x00\x02\xff\xd0\x03\xff\xd9";
        assert_eq!(scans(scan).unwrap(), scan);
        let appended = [&scan[..], b"\xff\xd8\xff\xe1\0\x06GPS!\xff\xd9ftypmp42"].concat();
        assert_eq!(scans(&appended).unwrap(), scan);
    }

    #[test]
    fn tables_between_scans_stay_and_comments_go() {
        let data = b"\x01\xff\xc4\0\x04\xff\xd9\xff\xfe\0\x06home\xff\xe1\0\x06GPS!\xff\xff\xda\0\x03\x01\x02\xff\xd9";
        assert_eq!(scans(data).unwrap(), b"\x01\xff\xc4\0\x04\xff\xd9\xff\xda\0\x03\x01\x02\xff\xd9");
    }

    #[test]
    fn an_image_that_does_not_end_is_none() {
        for data in [
            &b""[..],
            b"\x01",
            b"\xff",
            b"\x01\xff\xc4",
            b"\xff\xc4\0\x09",
            b"\xff\xc4\0\0\xff\xd9",
            b"\xff\xc4\0\x01x",
            b"\x01\xff\xd8",
        ] {
            assert_eq!(scans(data), None, "{data:?}");
        }
    }
}
