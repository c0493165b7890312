//! Unpacks an index file, whatever it is packed with: plain, gzip, lz4 frame, xz or zstd, told by magic.
//!
//! Names are not trusted: apt keeps `.lz4` where the archive had `.xz`, and tests of users name as they
//! like. Everything streams except xz: the decoder at hand (lzma-rs) holds a whole xz block unpacked, so
//! the sizes in the chunk headers are added up first, and a block above [`XZ_BLOCK_BYTES_MAX`] is refused. apt
//! itself keeps lists plain or as lz4, so xz is the exception (`Acquire::GzipIndexes` with odd settings).
//!
//! bzip2 is refused with a clear error: no archive offers only bz2 any more.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};

use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use ruzstd::decoding::StreamingDecoder;

/// What one block of an xz file may unpack to, in bytes, because lzma-rs holds it (twice) in memory; a
/// larger one is refused. Ubuntu's universe, the largest list known, has 70 MB.
pub const XZ_BLOCK_BYTES_MAX: u64 = 96 << 20;

/// What any index may unpack to, in bytes; reading stops there with an error. Debian's largest is 60 MB.
pub const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// The window a zstd file may ask for, in bytes; more is refused (the format's own recommended limit).
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

/// Why an index could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unpacking {
    /// A format that is not read here.
    #[error("packed with {0}, which is not supported; let apt keep its lists plain, lz4, gz, xz or zstd")]
    Unsupported(&'static str),
    /// More data than a list can sensibly hold.
    #[error("unpacks to more than {limit_bytes} bytes")]
    TooLarge {
        /// The limit that was reached.
        limit_bytes: u64,
    },
    /// The file is damaged or could not be read.
    #[error("cannot be read beyond {unpacked_bytes} unpacked bytes: {source}")]
    Read {
        /// What had been passed on before.
        unpacked_bytes: u64,
        /// What stopped it.
        source: io::Error,
    },
}

/// Passes the unpacked content of `file` to `sink` and returns its length in bytes.
///
/// # Errors
/// What had been unpacked before an error has been passed on.
pub fn unpack(file: File, sink: &mut impl Write) -> Result<u64, Unpacking> {
    let mut out = Metered { sink, passed_bytes: 0 };
    match unpack_into(BufReader::with_capacity(64 << 10, file), &mut out) {
        Ok(()) => Ok(out.passed_bytes),
        Err(_) if out.passed_bytes > UNPACKED_BYTES_MAX => Err(Unpacking::TooLarge { limit_bytes: UNPACKED_BYTES_MAX }),
        Err(Stop::Io(source)) => Err(Unpacking::Read { unpacked_bytes: out.passed_bytes, source }),
        Err(Stop::Refuse(refusal)) => Err(refusal),
    }
}

enum Stop {
    Io(io::Error),
    Refuse(Unpacking),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn unpack_into(mut packed: BufReader<File>, out: &mut impl Write) -> Result<(), Stop> {
    let magic = packed.fill_buf()?;
    match magic {
        [0x1f, 0x8b, ..] => copy(MultiGzDecoder::new(packed), out)?,
        [0x04, 0x22, 0x4d, 0x18, ..] => unpack_lz4(packed, out)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => unpack_zstd(packed, out)?,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unpack_xz(packed, out)?,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => return Err(Stop::Refuse(Unpacking::Unsupported("bzip2"))),
        _ => copy(packed, out)?,
    }
    Ok(())
}

/// `io::copy` with a buffer that fits the decoders' blocks.
fn copy(mut from: impl Read, out: &mut impl Write) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => out.write_all(&chunk[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A frame may follow a frame; the decoder reports the end of each as the end of data.
fn unpack_lz4(packed: BufReader<File>, out: &mut impl Write) -> io::Result<()> {
    let mut decoder = FrameDecoder::new(packed);
    loop {
        copy(&mut decoder, out)?;
        if decoder.get_mut().fill_buf()?.is_empty() {
            return Ok(());
        }
    }
}

fn unpack_zstd(mut packed: BufReader<File>, out: &mut impl Write) -> io::Result<()> {
    while !packed.fill_buf()?.is_empty() {
        let frame =
            StreamingDecoder::new_with_max_window_size(&mut packed, ZSTD_WINDOW_BYTES_MAX).map_err(io::Error::other)?;
        copy(frame, out)?;
    }
    Ok(())
}

fn unpack_xz(mut packed: BufReader<File>, out: &mut impl Write) -> Result<(), Stop> {
    if xz_largest_block_bytes(&mut packed)? > XZ_BLOCK_BYTES_MAX {
        return Err(Stop::Refuse(Unpacking::TooLarge { limit_bytes: XZ_BLOCK_BYTES_MAX }));
    }
    packed.seek(SeekFrom::Start(0))?;
    lzma_rs::xz_decompress(&mut packed, out).map_err(|e| match e {
        lzma_rs::error::Error::IoError(e) => Stop::Io(e),
        other => Stop::Io(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}"))),
    })
}

/// The size of the largest block of the first xz stream, from the headers of its LZMA2 chunks, without
/// unpacking. Ends early, with what it has, where the file is not what it should be: the decoder then
/// says what is wrong.
fn xz_largest_block_bytes(packed: &mut (impl BufRead + Seek)) -> io::Result<u64> {
    let mut largest = 0;
    packed.seek_relative(7)?;
    let check_bytes = match next_byte(packed)? {
        Some(1) => 4,
        Some(4) => 8,
        Some(10) => 32,
        _ => 0,
    };
    packed.seek_relative(4)?;
    loop {
        let Some(header_size) = next_byte(packed)? else { return Ok(largest) };
        if header_size == 0 {
            return Ok(largest);
        }
        packed.seek_relative(i64::from(header_size) * 4 + 3)?;
        let mut block_bytes = 0;
        let ended = add_lzma2_chunks(packed, &mut block_bytes)?;
        largest = largest.max(block_bytes);
        if !ended {
            return Ok(largest);
        }
        let padding = match packed.stream_position()? % 4 {
            0 => 0,
            1 => 3,
            2 => 2,
            _ => 1,
        };
        packed.seek_relative(padding + check_bytes)?;
    }
}

/// False when the chunks did not end as LZMA2 must.
fn add_lzma2_chunks(packed: &mut (impl BufRead + Seek), total: &mut u64) -> io::Result<bool> {
    loop {
        let Some(control) = next_byte(packed)? else { return Ok(false) };
        if control == 0 {
            return Ok(true);
        }
        let Some(low) = next_u16(packed)? else { return Ok(false) };
        let skip = match control {
            1 | 2 => {
                *total += u64::from(low) + 1;
                i64::from(low) + 1
            }
            0x80.. => {
                *total += (u64::from(control & 0x1f) << 16) + u64::from(low) + 1;
                let Some(packed_len) = next_u16(packed)? else { return Ok(false) };
                i64::from(packed_len) + 1 + i64::from(control >= 0xc0)
            }
            _ => return Ok(false),
        };
        packed.seek_relative(skip)?;
    }
}

fn next_byte(from: &mut impl BufRead) -> io::Result<Option<u8>> {
    let next = from.fill_buf()?.first().copied();
    from.consume(usize::from(next.is_some()));
    Ok(next)
}

fn next_u16(from: &mut impl BufRead) -> io::Result<Option<u16>> {
    let (high, low) = (next_byte(from)?, next_byte(from)?);
    Ok(high.zip(low).map(|(high, low)| u16::from_be_bytes([high, low])))
}

struct Metered<'a, W> {
    sink: &'a mut W,
    passed_bytes: u64,
}

impl<W: Write> Write for Metered<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.passed_bytes += data.len() as u64;
        if self.passed_bytes > UNPACKED_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.sink.write_all(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
