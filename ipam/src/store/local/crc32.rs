//! The checksum of lines and pages: CRC-32 as of IEEE 802.3, zlib and `cksum -o 3`.
//!
//! `crc32fast` computes the same, and the tests hold the two together. Without the processor's own instructions, asking for
//! which costs more than they save on the few hundred bytes of a transaction, it brings a table of 16 KiB: of the 2 MiB that
//! `weft-cni` may have, that is too much. This one has 4 KiB and takes four bytes at a time.

#![expect(
    clippy::indexing_slicing,
    reason = "a table of 256 is indexed by a byte, and the constants by the compiler"
)]

const POLYNOMIAL: u32 = 0xedb8_8320;

/// For each byte what it adds to the remainder: as the last one, and with one, two and three more behind it.
static TABLES: [[u32; 256]; 4] = tables();

/// The checksum of `bytes`.
pub(super) fn hash(bytes: &[u8]) -> u32 {
    hash_all([bytes])
}

/// The checksum of all `parts`, as if they stood in one piece.
pub(super) fn hash_all<'b>(parts: impl IntoIterator<Item = &'b [u8]>) -> u32 {
    !parts.into_iter().fold(u32::MAX, update)
}

fn update(remainder: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let remainder = words.iter().fold(remainder, |remainder, word| {
        let [a, b, c, d] = (remainder ^ u32::from_le_bytes(*word)).to_le_bytes();
        of(3, a) ^ of(2, b) ^ of(1, c) ^ of(0, d)
    });
    rest.iter().fold(remainder, |remainder, byte| {
        let [low, ..] = remainder.to_le_bytes();
        (remainder >> 8) ^ of(0, low ^ byte)
    })
}

fn of(behind: usize, byte: u8) -> u32 {
    TABLES[behind][usize::from(byte)]
}

const fn tables() -> [[u32; 256]; 4] {
    let mut tables = [[0; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = (remainder >> 1) ^ (POLYNOMIAL * (remainder & 1));
            bit += 1;
        }
        tables[0][byte] = remainder;
        byte += 1;
    }
    let mut behind = 1;
    while behind < 4 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[behind - 1][byte];
            tables[behind][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        behind += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_value_of_the_standard_comes_out() {
        assert_eq!(hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(hash(b""), 0);
    }

    proptest! {
        #[test]
        fn it_is_what_the_library_computes(bytes: Vec<u8>, cut: prop::sample::Index) {
            prop_assert_eq!(hash(&bytes), crc32fast::hash(&bytes));
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(hash_all([head, tail]), hash(&bytes));
        }
    }
}
