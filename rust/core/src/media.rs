//! What an image, a recording, a video or a file weighs in a prompt, estimated by its kind and size.
//!
//! Engines count patches and frames, not the bytes that carry them. The guess is that of a common
//! model of each kind; [`Sizes`](crate::sizes::Sizes) learns what the served model makes of it.

/// What is in a prompt beside text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A still image.
    Image,
    /// Sound.
    Audio,
    /// Moving images.
    Video,
    /// A document.
    File,
}

/// Pixels of a token's side: patches of 14, two by two (Qwen2-VL and its kin).
const PATCH: u64 = 28;
const MOST: u64 = 16_384;
/// Tokens of a second of sound, and bytes of one where its header does not tell.
const AUDIO_RATE: u64 = 25;
const AUDIO_BYTES: u64 = 16_000;
/// Bytes that carry a token of a video, of a document, and of a text file.
const VIDEO_BYTES: u64 = 1024;
const FILE_BYTES: u64 = 100;
const TEXT_BYTES: u64 = 4;
/// Segments of a JPEG that are looked at before its size.
const MOST_SEGMENTS: usize = 64;

/// Tokens of what a URL, a data URL or bare base64 stands for.
pub fn tokens(kind: Kind, payload: &[u8]) -> u32 {
    let (header, data) = split(payload);
    let data = Data(data);
    let found = if is_address(payload) {
        None
    } else if header.starts_with(b"data:text/") || header.starts_with(b"data:application/json") {
        Some(data.len() / TEXT_BYTES)
    } else {
        match kind {
            Kind::Image => size(&data).map(|(w, h)| w.div_ceil(PATCH) * h.div_ceil(PATCH)),
            Kind::Audio => Some(data.len() / byte_rate(&data) * AUDIO_RATE),
            Kind::Video => Some(data.len() / VIDEO_BYTES),
            Kind::File => Some(data.len() / FILE_BYTES),
        }
    };
    let unknown = match kind {
        Kind::Image => 1024,
        Kind::Audio => 30 * AUDIO_RATE,
        Kind::Video => 4096,
        Kind::File => 2048,
    };
    found.unwrap_or(unknown).clamp(16, MOST) as u32
}

/// The bytes that tell one from another: those of a data URL behind its header.
pub fn content(payload: &[u8]) -> &[u8] {
    split(payload).1
}

fn is_address(payload: &[u8]) -> bool {
    let head = &payload[..payload.len().min(64)];
    !head.starts_with(b"data:") && (payload.len() < 256 || head.windows(3).any(|w| w == b"://"))
}

/// Header and data of a data URL; bare data has no header.
fn split(payload: &[u8]) -> (&[u8], &[u8]) {
    let head = &payload[..payload.len().min(256)];
    match head.iter().position(|&byte| byte == b',') {
        Some(comma) if head.starts_with(b"data:") => (&payload[..comma], &payload[comma + 1..]),
        _ => (&[], payload),
    }
}

/// Base64, decoded where it is looked at.
struct Data<'a>(&'a [u8]);

impl Data<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64 / 4 * 3
    }

    fn byte(&self, at: usize) -> Option<u64> {
        let group = at / 3 * 4;
        let digit = |i: usize| digit(*self.0.get(group + i)?);
        Some(match at % 3 {
            0 => digit(0)? << 2 | digit(1)? >> 4,
            1 => (digit(1)? & 15) << 4 | digit(2)? >> 2,
            _ => (digit(2)? & 3) << 6 | digit(3)?,
        })
    }

    fn is(&self, at: usize, bytes: &[u8]) -> bool {
        bytes.iter().enumerate().all(|(i, &b)| self.byte(at + i) == Some(u64::from(b)))
    }

    /// A number of `n` bytes, most significant first.
    fn big(&self, at: usize, n: usize) -> Option<u64> {
        (at..at + n).try_fold(0, |sum, at| Some(sum << 8 | self.byte(at)?))
    }

    /// A number of `n` bytes, least significant first.
    fn little(&self, at: usize, n: usize) -> Option<u64> {
        (at..at + n).rev().try_fold(0, |sum, at| Some(sum << 8 | self.byte(at)?))
    }
}

fn digit(byte: u8) -> Option<u64> {
    Some(u64::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

/// Width and height in pixels, where the image's format is known.
fn size(data: &Data<'_>) -> Option<(u64, u64)> {
    let found = if data.is(0, b"\x89PNG") {
        (data.big(16, 4)?, data.big(20, 4)?)
    } else if data.is(0, b"GIF8") {
        (data.little(6, 2)?, data.little(8, 2)?)
    } else if data.is(0, b"BM") {
        (data.little(18, 4)?, data.little(22, 4)?)
    } else if data.is(0, b"RIFF") && data.is(8, b"WEBP") {
        webp(data)?
    } else if data.is(0, b"\xff\xd8") {
        jpeg(data)?
    } else {
        return None;
    };
    let most = 1 << 16;
    (found.0 > 0 && found.1 > 0).then_some((found.0.min(most), found.1.min(most)))
}

fn webp(data: &Data<'_>) -> Option<(u64, u64)> {
    if data.is(12, b"VP8X") {
        return Some((data.little(24, 3)? + 1, data.little(27, 3)? + 1));
    }
    if data.is(12, b"VP8L") {
        let bits = data.little(21, 4)?;
        return Some(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1));
    }
    Some((data.little(26, 2)? & 0x3FFF, data.little(28, 2)? & 0x3FFF))
}

fn jpeg(data: &Data<'_>) -> Option<(u64, u64)> {
    let mut at = 2;
    for _ in 0..MOST_SEGMENTS {
        if data.byte(at)? != 0xFF {
            return None;
        }
        match data.byte(at + 1)? {
            0xFF => at += 1,
            // Start of frame, but for the tables that share its range.
            marker @ 0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                return Some((data.big(at + 7, 2)?, data.big(at + 5, 2)?));
            }
            _ => at += 2 + data.big(at + 2, 2)? as usize,
        }
    }
    None
}

fn byte_rate(data: &Data<'_>) -> u64 {
    let wave = data.is(0, b"RIFF") && data.is(8, b"WAVE");
    let rate = if wave { data.little(28, 4) } else { None };
    rate.filter(|&rate| rate > 0).unwrap_or(AUDIO_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(bytes: &[u8]) -> Vec<u8> {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = Vec::new();
        for group in bytes.chunks(3) {
            let word = group.iter().fold(0_u32, |sum, &b| sum << 8 | u32::from(b));
            let word = word << (8 * (3 - group.len()));
            for i in 0..4 {
                let digit = DIGITS[(word >> (18 - 6 * i)) as usize & 63];
                out.push(if i <= group.len() { digit } else { b'=' });
            }
        }
        out
    }

    fn png(w: u32, h: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend(w.to_be_bytes());
        bytes.extend(h.to_be_bytes());
        bytes.extend([0; 99]);
        bytes
    }

    fn pixels(bytes: &[u8]) -> Option<(u64, u64)> {
        size(&Data(&base64(bytes)))
    }

    #[test]
    fn every_byte_of_base64_is_found_where_it_is() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = base64(&bytes);
        let data = Data(&text);
        assert!((0..256).all(|at| data.byte(at) == Some(at as u64)));
        assert_eq!(data.byte(256), None);
    }

    #[test]
    fn the_size_of_an_image_stands_in_its_header() {
        assert_eq!(pixels(&png(1024, 768)), Some((1024, 768)));
        assert_eq!(pixels(b"GIF89a\x40\x01\xF0\x00"), Some((320, 240)));
        let mut vp8x = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0".to_vec();
        vp8x.extend([0x7F, 0x02, 0, 0xDF, 0x01, 0]);
        assert_eq!(pixels(&vp8x), Some((640, 480)));
        let mut lossless = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f".to_vec();
        lossless.extend((0x27F_u32 | 0x1DF << 14).to_le_bytes());
        assert_eq!(pixels(&lossless), Some((640, 480)));
        let mut jpeg = b"\xff\xd8\xff\xe1".to_vec();
        jpeg.extend(3000_u16.to_be_bytes());
        jpeg.extend([7; 2998]);
        jpeg.extend(b"\xff\xc4\0\x02\xff\xc0\0\x11\x08");
        jpeg.extend([1, 0xE0, 2, 0x80, 3]);
        assert_eq!(pixels(&jpeg), Some((640, 480)));
        assert_eq!(pixels(b"\xff\xd8 no marker here"), None);
        assert_eq!(pixels(&png(0, 5)), None);
        assert_eq!(pixels(b"noise"), None);
    }

    #[test]
    fn an_image_weighs_by_its_pixels_and_not_by_its_bytes() {
        let url = |bytes: &[u8]| [b"data:image/png;base64,".as_slice(), &base64(bytes)].concat();
        assert_eq!(tokens(Kind::Image, &url(&png(560, 280))), 200);
        assert_eq!(tokens(Kind::Image, &url(&png(u32::MAX, u32::MAX))), MOST as u32);
        assert_eq!(tokens(Kind::Image, &url(&vec![9; 300_000])), 1024);
        assert_eq!(tokens(Kind::Image, b"http://x/1.png"), 1024);
        assert_eq!(tokens(Kind::Image, b""), 1024);
        let long = [b"https://x/?sign=".as_slice(), &[b'a'; 4000]].concat();
        assert_eq!(tokens(Kind::File, &long), 2048);
    }

    #[test]
    fn sound_weighs_by_its_seconds() {
        let mut wave = b"RIFF\0\0\0\0WAVEfmt \0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        wave.extend(32_000_u32.to_le_bytes());
        wave.extend(vec![0; 320_000]);
        assert_eq!(tokens(Kind::Audio, &base64(&wave)), 10 * 25);
        assert_eq!(tokens(Kind::Audio, &base64(&vec![1; 160_000])), 10 * 25);
    }

    #[test]
    fn the_header_of_a_data_url_is_no_content() {
        assert_eq!(content(b"data:image/png;base64,AAAA"), b"AAAA");
        assert_eq!(content(b"AAAA"), b"AAAA");
        assert_eq!(content(b"data:"), b"data:");
    }
}
