//! A stream that parses the WebSocket frame headers of the data that it passes on (RFC 6455, 5.2), and fails
//! before the first payload byte of a message that is too long.
//!
//! The WebSocket library has such limits too, but fixes them at the handshake.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest frame header without the masking key: 2 + 8 bytes.
const HEAD_BYTES_MAX: usize = 10;
/// Length of the masking key, which follows the payload length.
const MASK_BYTES: u64 = 4;

/// A message is longer than allowed. Nothing of its last frame's payload was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a message of {size} bytes; at most {limit} are allowed")]
pub struct MessageTooLong {
    /// Bytes of the message, as far as its frames have announced.
    pub size: u64,
    /// Bytes allowed.
    pub limit: u64,
}

/// Position of the parser within the frames.
#[derive(Debug, Default)]
struct Frames {
    /// The current header, up to the end of the payload length.
    head: [u8; HEAD_BYTES_MAX],
    /// Number of bytes in `head`.
    known: usize,
    /// Bytes until the next header.
    rest: u64,
    /// Payload bytes of the current message's earlier fragments.
    message: u64,
}

/// A stream that limits the length of WebSocket messages.
#[derive(Debug)]
pub struct Bounded<S> {
    inner: S,
    limit: u64,
    frames: Frames,
    /// Bytes that were read but belong to a message that is too long. Delivered when the limit is raised: a
    /// client may send its first long message right after its proof.
    held: Vec<u8>,
}

impl<S> Bounded<S> {
    /// Limits messages read from `inner` to `limit` bytes.
    pub fn new(inner: S, limit: usize) -> Self {
        let mut bounded = Self { inner, limit: 0, frames: Frames::default(), held: Vec::new() };
        bounded.set_limit(limit);
        bounded
    }

    /// Changes the limit for messages from here on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = u64::try_from(limit).unwrap_or(u64::MAX);
    }
}

impl Frames {
    /// Parses `bytes`. Fails with the offset of the byte that completes a too large length, and the size of
    /// the message. All bytes before that offset are consumed.
    fn read(&mut self, bytes: &[u8], limit: u64) -> Result<(), (usize, u64)> {
        let mut offset = 0;
        while offset < bytes.len() {
            if self.rest > 0 {
                let left = bytes.len() - offset;
                let passed = usize::try_from(self.rest).map_or(left, |rest| rest.min(left));
                self.rest -= passed as u64;
                offset += passed;
                continue;
            }
            self.head[self.known] = bytes[offset];
            if let Some(length) = self.length() {
                let is_control = self.head[0] & 0x08 != 0;
                let is_last = self.head[0] & 0x80 != 0;
                let size = if is_control { length } else { self.message.saturating_add(length) };
                if size > limit {
                    return Err((offset, size));
                }
                if !is_control {
                    self.message = if is_last { 0 } else { size };
                }
                let mask = if self.head[1] & 0x80 != 0 { MASK_BYTES } else { 0 };
                self.rest = length.saturating_add(mask);
                self.known = 0;
            } else {
                self.known += 1;
            }
            offset += 1;
        }
        Ok(())
    }

    /// The payload length, if the byte at `known` completes it.
    fn length(&self) -> Option<u64> {
        if self.known == 0 {
            return None;
        }
        let short = self.head[1] & 0x7f;
        let end = match short {
            126 => 4,
            127 => HEAD_BYTES_MAX,
            _ => return Some(short.into()),
        };
        (self.known + 1 == end)
            .then(|| self.head[2..end].iter().fold(0, |length, byte| (length << 8) | u64::from(*byte)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.held.is_empty() {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        } else {
            let taken = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held[..taken]);
            this.held.drain(..taken);
        }
        let Err((offset, size)) = this.frames.read(&buf.filled()[before..], this.limit) else {
            return Poll::Ready(Ok(()));
        };
        this.held.splice(..0, buf.filled()[before + offset..].iter().copied());
        buf.set_filled(before + offset);
        if offset > 0 {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(io::Error::other(MessageTooLong { size, limit: this.limit })))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client sends it: header, masking key, payload.
    fn frame(opcode: u8, is_last: bool, is_masked: bool, length: usize) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut bytes = vec![opcode | if is_last { 0x80 } else { 0 }];
        match length {
            0..=125 => bytes.push(mask | u8::try_from(length).unwrap()),
            126..=0xffff => {
                bytes.push(mask | 0x7e);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 0x7f);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.resize(bytes.len() + if is_masked { 4 } else { 0 } + length, 0xff);
        bytes
    }

    proptest! {
        /// However frames are cut into reads, only a too long message is reported, with its size, before its
        /// payload.
        #[test]
        fn a_message_that_is_too_long_is_noticed_at_the_end_of_its_length(
            before in prop::collection::vec((any::<bool>(), any::<bool>(), 0..300_usize), 0..6),
            fragments in prop::collection::vec(0..200_usize, 0..3),
            cuts in prop::collection::vec(1..400_usize, 1..9),
            last in prop_oneof![0..200_usize, 60_000..70_000_usize],
        ) {
            let limit = 500_u64;
            let mut bytes = Vec::new();
            for (is_control, is_masked, length) in before {
                let (opcode, length) = if is_control { (0x9, length % 126) } else { (0x1, length) };
                bytes.extend(frame(opcode, true, is_masked, length));
            }
            for (index, length) in fragments.iter().enumerate() {
                bytes.extend(frame(u8::from(index == 0), false, true, *length));
                bytes.extend(frame(0xa, true, true, 125));
            }
            let size = (fragments.iter().sum::<usize>() + last) as u64;
            let head = bytes.len() + if last < 126 { 1 } else if last <= 0xffff { 3 } else { 9 };
            let is_fragment = !fragments.is_empty();
            bytes.extend(frame(if is_fragment { 0 } else { 2 }, true, true, last));
            prop_assume!(fragments.iter().sum::<usize>() as u64 <= limit);

            let (mut frames, mut offset, mut cuts) = (Frames::default(), 0, cuts.iter().cycle());
            let noticed = loop {
                if offset == bytes.len() {
                    break None;
                }
                let end = bytes.len().min(offset + cuts.next().unwrap());
                if let Err((at, size)) = frames.read(&bytes[offset..end], limit) {
                    break Some((offset + at, size));
                }
                offset = end;
            };
            prop_assert_eq!(noticed, (size > limit).then_some((head, size)));
            // With a higher limit the parser continues from there.
            if let Some((at, _)) = noticed {
                prop_assert_eq!(frames.read(&bytes[at..], size), Ok(()));
                prop_assert_eq!((frames.known, frames.rest, frames.message), (0, 0, 0));
            }
        }
    }

    #[test]
    fn an_absurd_length_does_not_overflow() {
        let mut head = vec![0x82, 0xff];
        head.extend(u64::MAX.to_be_bytes());
        assert_eq!(Frames::default().read(&head, 500), Err((9, u64::MAX)));
        let mut frames = Frames { message: 400, ..Frames::default() };
        head[0] = 0x80;
        assert_eq!(frames.read(&head, 500), Err((9, u64::MAX)));
    }

    #[tokio::test]
    async fn a_too_long_message_is_held_back_until_the_limit_is_raised() {
        use tokio::io::AsyncReadExt as _;
        let (hello, long) = (frame(1, true, true, 20), frame(1, true, true, 1_000));
        let both = [hello.clone(), long.clone()].concat();
        let mut bounded = Bounded::new(&both[..], 100);
        let mut read = vec![0; both.len()];
        // The complete first message, and the part of the second header that does not state its length yet.
        let known = bounded.read(&mut read).await.unwrap();
        assert_eq!(known, hello.len() + 3);
        let error = bounded.read(&mut read[known..]).await.unwrap_err();
        let why = error.get_ref().unwrap().downcast_ref::<MessageTooLong>().unwrap();
        assert_eq!(*why, MessageTooLong { size: 1_000, limit: 100 });
        bounded.set_limit(1_000);
        bounded.read_exact(&mut read[known..]).await.unwrap();
        assert_eq!(read, both);
    }
}
