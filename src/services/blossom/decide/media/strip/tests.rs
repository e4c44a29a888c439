//! Images with places in every part that can hold some.

use img_parts::riff::RiffChunk;

use super::*;

const SECRET: &[u8] = b"52.5200N 13.4050E";

/// EXIF with an orientation and a text.
fn exif(orientation: u8, is_big: bool) -> Vec<u8> {
    let mut block =
        if is_big { b"MM\0*\0\0\0\x08\0\x02".to_vec() } else { b"II*\0\x08\0\0\0\x02\0".to_vec() };
    // A text at offset 38.
    let length = u8::try_from(SECRET.len()).unwrap();
    if is_big {
        block.extend_from_slice(&[0x01, 0x0e, 0, 2, 0, 0, 0, length, 0, 0, 0, 38]);
        block.extend_from_slice(&[0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0]);
    } else {
        block.extend_from_slice(&[0x0e, 0x01, 2, 0, length, 0, 0, 0, 38, 0, 0, 0]);
        block.extend_from_slice(&[0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0]);
    }
    block.extend_from_slice(&[0; 4]);
    block.extend_from_slice(SECRET);
    block
}

fn segment(marker: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len() + 2).unwrap().to_be_bytes();
    [&[0xff, marker][..], &length, contents].concat()
}

fn jpeg(orientation: u8) -> Vec<u8> {
    [
        &b"\xff\xd8"[..],
        &segment(0xe0, b"JFIF\0\x01\x02\0\0\x01\0\x01\0\0"),
        &segment(0xe1, &[b"Exif\0\0", &exif(orientation, false)[..]].concat()),
        &segment(0xe1, &[b"http://ns.adobe.com/xap/1.0/\0", SECRET].concat()),
        &segment(0xe2, b"ICC_PROFILE\0\x01\x01profile"),
        &segment(0xe2, &[b"MPF\0", SECRET].concat()),
        &segment(0xed, &[b"Photoshop 3.0\0", SECRET].concat()),
        &segment(0xee, b"Adobe\0d\0\0\0\0\x01"),
        &segment(0xfe, SECRET),
        &segment(0xdb, &[1; 65]),
        &segment(0xc0, b"\x08\0\x01\0\x01\x01\x01\x11\0"),
        &segment(0xda, b"\x01\x01\0\0\x3f\0"),
        b"scan\xff\0scan",
        &segment(0xfe, SECRET),
        &segment(0xda, b"\x01\x01\0\0\x3f\0"),
        b"more\xff\xd9",
        b"\xff\xd8",
        &segment(0xe1, &[b"Exif\0\0", &exif(1, true)[..]].concat()),
        b"\xff\xd9",
    ]
    .concat()
}

fn png(orientation: u8) -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| PngChunk::new(*kind, Bytes::copy_from_slice(data));
    let chunks = [
        chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]),
        chunk(b"tEXt", &[b"Location\0", SECRET].concat()),
        chunk(b"iTXt", &[b"XML:com.adobe.xmp\0\0\0\0\0", SECRET].concat()),
        chunk(b"eXIf", &exif(orientation, true)),
        chunk(b"tIME", &[0; 7]),
        chunk(b"prVt", SECRET),
        chunk(b"gAMA", &[0, 0, 0xb1, 0x8f]),
        chunk(b"IDAT", b"data"),
        chunk(b"IEND", b""),
    ];
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for chunk in chunks {
        file.extend_from_slice(&chunk.encoder().bytes());
    }
    file.extend_from_slice(SECRET);
    file
}

fn webp(orientation: u8) -> Vec<u8> {
    let chunk =
        |id: &[u8; 4], data: &[u8]| RiffChunk::new(*id, RiffContent::Data(Bytes::copy_from_slice(data)));
    let subchunks = vec![
        chunk(b"VP8X", &[0b0010_1100, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        chunk(b"ICCP", b"profile"),
        chunk(b"VP8 ", b"\x50\x5a\x00\x9d\x01\x2a\x01\0\x01\0"),
        chunk(b"EXIF", &exif(orientation, false)),
        chunk(b"XMP ", SECRET),
        chunk(b"PRIV", SECRET),
    ];
    let riff = RiffChunk::new(*b"RIFF", RiffContent::List { kind: Some(*b"WEBP"), subchunks });
    [&riff.encoder().bytes()[..], SECRET].concat()
}

fn contains(file: &[u8], part: &[u8]) -> bool {
    file.windows(part.len()).any(|window| window == part)
}

#[test]
fn bl_05_7_no_place_remains_in_any_format_and_the_picture_stays() {
    for (file, picture) in [
        (jpeg(6), &[&b"scan\xff\0scan"[..], b"more\xff\xd9", b"profile", b"Adobe"][..]),
        (png(6), &[&b"IHDR"[..], b"gAMA", b"data", b"IEND"][..]),
        (webp(6), &[&b"VP8 "[..], b"profile"][..]),
    ] {
        assert!(contains(&file, SECRET));
        let stripped = strip(Bytes::from(file)).unwrap();
        let media_type = stripped.media_type;
        assert!(!contains(&stripped.content, SECRET), "{media_type}");
        for part in picture {
            assert!(contains(&stripped.content, part), "{media_type}: {part:?}");
        }
        assert_eq!(super::super::sniffed_type(&stripped.content), Some(media_type));
        assert_eq!(strip(stripped.content.clone()), Ok(stripped), "nothing is left to remove");
    }
}

#[test]
fn bl_05_7_the_orientation_stays_and_an_upright_picture_has_no_exif() {
    let of_jpeg = |file: Vec<u8>| Jpeg::from_bytes(strip(Bytes::from(file)).unwrap().content).unwrap().exif();
    let of_png = |file: Vec<u8>| Png::from_bytes(strip(Bytes::from(file)).unwrap().content).unwrap().exif();
    let of_webp = |file: Vec<u8>| WebP::from_bytes(strip(Bytes::from(file)).unwrap().content).unwrap().exif();
    for turned in [3, 6, 8] {
        for exif in [of_jpeg(jpeg(turned)), of_png(png(turned)), of_webp(webp(turned))] {
            assert_eq!(orientation(&exif.unwrap()), Some(u16::from(turned)));
        }
    }
    for plain in [0, 1, 9] {
        assert_eq!([of_jpeg(jpeg(plain)), of_png(png(plain)), of_webp(webp(plain))], [None, None, None]);
    }
}

#[test]
fn the_flags_of_webp_say_what_is_left() {
    let flags = |file: Vec<u8>| {
        let webp = WebP::from_bytes(strip(Bytes::from(file)).unwrap().content).unwrap();
        webp.chunk_by_id(CHUNK_VP8X).unwrap().content().data().unwrap()[0]
    };
    assert_eq!(flags(webp(1)), 0b0010_0000);
    assert_eq!(flags(webp(6)), 0b0010_1000);
}

#[test]
fn a_broken_file_is_refused_wherever_it_is_cut() {
    for file in [jpeg(6), png(6), webp(6)] {
        for end in 0..file.len() {
            // What is appended may be cut off; everything before makes the image incomplete.
            if let Ok(stripped) = strip(Bytes::copy_from_slice(&file[..end])) {
                assert!(!contains(&stripped.content, SECRET), "cut at {end}");
            }
        }
    }
    assert_eq!(strip(Bytes::from_static(b"GIF89a")), Err(NotStripped::OtherFormat));
    assert_eq!(strip(Bytes::from_static(b"")), Err(NotStripped::OtherFormat));
    assert_eq!(strip(Bytes::from_static(b"\xff\xd8\xff\xd9")), Err(NotStripped::Broken));
}

#[test]
fn an_image_of_very_many_parts_is_refused_as_a_broken_one() {
    let empty = segment(0xdb, &[]).repeat(parts::PARTS_MAX + 1);
    let file = [&b"\xff\xd8"[..], &empty, &jpeg(1)[2..]].concat();
    assert_eq!(strip(Bytes::from(file)), Err(NotStripped::Broken));
}
