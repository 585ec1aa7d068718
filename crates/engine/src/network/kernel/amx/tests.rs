use super::emulator::{Instruction, Machine, install};
use super::unit::Shapes;
use super::*;
use crate::network::kernel::{Isa, tests::matrices, tests::quantized};

impl Token {
    /// The unit itself, where there is one, and the emulated one on other processors with AVX-512.
    pub(in crate::network::kernel) fn detect_or_emulate() -> Option<Self> {
        Self::detect().or_else(|| avx512::Token::detect().filter(|_| install()).map(Self))
    }
}

/// Row counts around those of tiles, and blocks that fill no panel, one, and more.
#[test]
fn every_kind_of_tile_gives_the_bits_of_avx512() {
    let Some(token) = Token::detect_or_emulate() else { return };
    for columns in [256, 512, 768] {
        for (kind, matrix) in matrices(columns) {
            for rows in [1, 15, 16, 17, 31, 32, 33, 43, 128] {
                let (_, activations) = quantized(Isa::Avx512(token.0), rows, columns);
                let (mut got, mut expected) = (vec![[f32::NAN; TILE]; rows], vec![[f32::NAN; TILE]; rows]);
                token.multiply(matrix.tile(1), &activations, &mut got);
                token.0.multiply(matrix.tile(1), &activations, &mut expected);
                assert_eq!(got, expected, "{kind}, {rows} rows of {columns}");
            }
        }
    }
}

#[test]
fn products_are_counted() {
    let Some(token) = Token::detect_or_emulate() else { return };
    assert_eq!([0, 1, 3].map(|rounds| token.products(rounds)), [0, 65_536, 196_608]);
}

/// On a processor with the unit, this holds the emulator against it.
#[test]
fn the_emulator_gives_what_the_instructions_give_and_both_the_products_of_bytes() {
    let Some(_) = Token::detect_or_emulate() else { return };
    let columns = 3;
    let blocks: Vec<QuantizedBlock> = (0..ROWS * columns)
        .map(|i| QuantizedBlock { words: std::array::from_fn(|w| noise(8 * i + w)), ..Default::default() })
        .collect();
    let weights: [[u8; 64]; 8] =
        std::array::from_fn(|v| std::array::from_fn(|i| noise(64 * v + i + 7) as u8));

    let mut machine = Machine::new();
    let mut emulated = Dots::ZERO;
    let unit = [
        Instruction::Configure { from: address(Shapes::products()) },
        Instruction::Zero { tile: 3 },
        Instruction::Load {
            tile: 4,
            from: address(&blocks[1]),
            stride: columns * size_of::<QuantizedBlock>(),
        },
        Instruction::Load { tile: 5, from: address(&weights), stride: 64 },
        Instruction::Multiply { sums: 3, left: 4, right: 5 },
        Instruction::Store { tile: 3, at: (&raw mut emulated) as usize, stride: 64 },
    ];
    for instruction in unit {
        // SAFETY: there are 16 rows of blocks and 8 of weights, and room for 16 of sums.
        unsafe { machine.execute(instruction) }.unwrap();
    }

    for pair in 0..2 {
        let mut dots = Dots::ZERO;
        // SAFETY: there is the unit, or its emulator; as above.
        unsafe { Unit::configured().multiply(pair, &blocks[1..], columns, &weights, &mut dots) };
        assert_eq!(dots.0, emulated.0);
    }
    for m in 0..ROWS {
        for i in 0..TILE {
            let product = |column: usize| {
                let activation = blocks[m * columns + 1].words[column / 4].to_le_bytes()[column % 4];
                let weight = weights[column / 4][4 * i + column % 4];
                i32::from(activation as i8) * i32::from(weight as i8)
            };
            assert_eq!(emulated.0[m][i], (0..32).map(product).sum::<i32>(), "row {m}, sum {i}");
        }
    }
}

#[test]
fn the_emulator_reads_every_form_of_an_instruction() {
    let value = |number: usize| 1000 * number;
    // As GNU's assembler encodes them.
    let known: [(&[u8], Instruction); 10] = [
        (&[0xc4, 0xe2, 0x78, 0x49, 0x00], Instruction::Configure { from: 0 }),
        (&[0xc4, 0xc2, 0x78, 0x49, 0x04, 0x24], Instruction::Configure { from: 12_000 }),
        (&[0xc4, 0xc2, 0x78, 0x49, 0x45, 0x00], Instruction::Configure { from: 13_000 }),
        (&[0xc4, 0xe2, 0x78, 0x49, 0xc0], Instruction::Release),
        (&[0xc4, 0xe2, 0x7b, 0x49, 0xe8], Instruction::Zero { tile: 5 }),
        (&[0xc4, 0xe2, 0x7b, 0x4b, 0x0c, 0x08], Instruction::Load { tile: 1, from: 0, stride: 1000 }),
        (
            &[0xc4, 0xa2, 0x7b, 0x4b, 0x54, 0x8b, 0xc0],
            Instruction::Load { tile: 2, from: 3000 - 64, stride: 36_000 },
        ),
        (
            &[0xc4, 0xe2, 0x7b, 0x4b, 0xbc, 0x20, 0x00, 0x01, 0x00, 0x00],
            Instruction::Load { tile: 7, from: 256, stride: 0 },
        ),
        (&[0xc4, 0x82, 0x7a, 0x4b, 0x04, 0x0f], Instruction::Store { tile: 0, at: 15_000, stride: 9000 }),
        (&[0xc4, 0xe2, 0x6b, 0x5e, 0xc1], Instruction::Multiply { sums: 0, left: 1, right: 2 }),
    ];
    for (bytes, expected) in known {
        // SAFETY: the bytes are a whole instruction.
        let decoded = unsafe { Instruction::decode(bytes.as_ptr(), value) };
        assert_eq!(decoded, Ok((expected, bytes.len())), "{bytes:x?}");
    }
    // TDPBSUD, TILELOADDT1, STTILECFG, a load without an index, a tile above 7, W, and what is not the unit's.
    for bytes in [
        [0xc4, 0xe2, 0x6a, 0x5e, 0xc1, 0x90],
        [0xc4, 0xe2, 0x79, 0x4b, 0x0c, 0x08],
        [0xc4, 0xe2, 0x79, 0x49, 0x00, 0x90],
        [0xc4, 0xe2, 0x7b, 0x4b, 0x08, 0x90],
        [0xc4, 0xe2, 0x2b, 0x5e, 0xc1, 0x90],
        [0xc4, 0xe2, 0xeb, 0x5e, 0xc1, 0x90],
        [0x0f, 0x0b, 0x90, 0x90, 0x90, 0x90],
    ] {
        // SAFETY: as above.
        assert!(unsafe { Instruction::decode(bytes.as_ptr(), value) }.is_err(), "{bytes:x?}");
    }
}

#[test]
fn the_emulator_refuses_what_a_processor_refuses() {
    type Change = fn(&mut [u8; 64]);
    let changes: [(Change, &str); 8] = [
        (|bytes| bytes[0] = 2, "no such palette"),
        (|bytes| bytes[1] = 1, "a start row"),
        (|bytes| bytes[7] = 1, "reserved"),
        (|bytes| bytes[32] = 4, "reserved"),
        (|bytes| bytes[56] = 1, "reserved"),
        (|bytes| bytes[48] = 17, "larger"),
        (|bytes| bytes[16] = 65, "larger"),
        (|bytes| bytes[48] = 0, "columns and no rows"),
    ];
    for (change, why) in changes {
        let mut bytes = configuration([(16, 64), (16, 32), (8, 64), (0, 0)]);
        change(&mut bytes);
        let refused = run(&mut Machine::new(), Instruction::Configure { from: address(&bytes) });
        assert!(refused.is_err_and(|refused| refused.contains(why)), "{refused:?}, not {why}");
    }

    let multiply = Instruction::Multiply { sums: 0, left: 1, right: 2 };
    let shapes = [
        ([(16, 64), (16, 32), (8, 64), (0, 0)], None),
        ([(3, 20), (3, 4), (1, 20), (0, 0)], None),
        ([(16, 64), (15, 32), (8, 64), (0, 0)], Some("do not fit")),
        ([(16, 64), (16, 32), (9, 64), (0, 0)], Some("do not fit")),
        ([(16, 64), (16, 32), (8, 60), (0, 0)], Some("do not fit")),
        ([(16, 62), (16, 32), (8, 62), (0, 0)], Some("fours")),
        ([(16, 64), (16, 32), (0, 0), (8, 64)], Some("not configured")),
    ];
    for (shapes, why) in shapes {
        let mut machine = Machine::new();
        let bytes = configuration(shapes);
        run(&mut machine, Instruction::Configure { from: address(&bytes) }).unwrap();
        assert_eq!(
            run(&mut machine, multiply).err().map(|got| got.contains(why.unwrap())),
            why.map(|_| true)
        );
    }

    let mut machine = Machine::new();
    let bytes = configuration([(16, 64); 4]);
    assert_eq!(run(&mut machine, multiply), Err("no tiles are configured"));
    run(&mut machine, Instruction::Configure { from: address(&bytes) }).unwrap();
    for (sums, left, right) in [(0, 0, 1), (1, 0, 1), (0, 1, 1)] {
        let twice = Instruction::Multiply { sums, left, right };
        assert_eq!(run(&mut machine, twice), Err("TDPBSSD: a tile twice"));
    }
    assert_eq!(run(&mut machine, Instruction::Zero { tile: 4 }), Err("this tile is not configured"));
    run(&mut machine, Instruction::Release).unwrap();
    assert_eq!(run(&mut machine, Instruction::Zero { tile: 0 }), Err("no tiles are configured"));
}

/// Of the first four tiles.
fn configuration(shapes: [(u8, u8); 4]) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    for (tile, (rows, width)) in shapes.into_iter().enumerate() {
        (bytes[48 + tile], bytes[16 + 2 * tile]) = (rows, width);
    }
    bytes
}

/// Of instructions whose memory is a configuration.
fn run(machine: &mut Machine, instruction: Instruction) -> Result<(), &'static str> {
    // SAFETY: only `Configure` names memory, of 64 bytes.
    unsafe { machine.execute(instruction) }
}

fn address<T>(of: &T) -> usize {
    std::ptr::from_ref(of) as usize
}

/// Numbers without a pattern, of all bits.
fn noise(i: usize) -> i32 {
    ((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29) as i32
}
