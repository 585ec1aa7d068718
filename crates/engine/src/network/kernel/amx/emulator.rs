//! The tile unit's instructions in software, for tests on processors without it: there they are illegal, and a handler of the
//! signal does what they would have done. Only those that `unit.rs` uses; what a processor refuses is refused.
//!
//! After the Intel 64 and IA-32 Architectures Software Developer's Manual: volume 2 for what each instruction does and how it is
//! encoded, and its section "Intel AMX Instruction Exception Classes" (AMX-E1 to E6) for what is refused.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

/// From now on, the unit's instructions work in this process. False where illegal instructions cannot be handled.
pub(super) fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        // SAFETY: all zeros are a valid `sigaction`, and the handler has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal as extern "C" fn(_, _, _) as usize;
            // On the thread's own stack: the one for signals is too small for copies of tiles.
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()) == 0
        }
    })
}

thread_local! {
    static MACHINE: UnsafeCell<Machine> = const { UnsafeCell::new(Machine::new()) };
}

/// Comes back after the instruction; where it is refused, says why, and the process ends by the signal.
extern "C" fn on_illegal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes the state of the thread at an instruction that it could not execute, whose bytes are readable.
    // What the instruction names as memory is what the caller gave it. No other borrow of the thread's machine exists: the
    // handler executes none of its instructions.
    let done = unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as *const u8;
        let value = |number: usize| registers[REGISTERS[number] as usize] as usize;
        Instruction::decode(at, value).and_then(|(instruction, len)| {
            registers[libc::REG_RIP as usize] += len as i64;
            MACHINE.with(|machine| (*machine.get()).execute(instruction))
        })
    };
    if let Err(why) = done {
        // SAFETY: `write` gets bytes and their length. With its default the signal, which is sent again, ends the process.
        unsafe {
            for text in ["illegal instruction: ", why, "\n"] {
                libc::write(2, text.as_ptr().cast(), text.len());
            }
            libc::signal(libc::SIGILL, libc::SIG_DFL);
            libc::raise(libc::SIGILL);
        }
    }
}

/// By the numbers that instructions have for them.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Tiles are named by number; `at` and `from` are addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Instruction {
    /// LDTILECFG
    Configure { from: usize },
    /// TILERELEASE
    Release,
    /// TILEZERO
    Zero { tile: usize },
    /// TILELOADD
    Load { tile: usize, from: usize, stride: usize },
    /// TILESTORED
    Store { tile: usize, at: usize, stride: usize },
    /// TDPBSSD
    Multiply { sums: usize, left: usize, right: usize },
}

impl Instruction {
    /// With its length. `value` gives that of a general register.
    ///
    /// SAFETY: there is a whole instruction at `code`.
    pub(super) unsafe fn decode(
        code: *const u8,
        value: impl Fn(usize) -> usize,
    ) -> Result<(Self, usize), &'static str> {
        let mut len = 0;
        let mut byte = || {
            // SAFETY: bytes are read only as far as those before them say that the instruction goes.
            let byte = unsafe { *code.add(len) };
            len += 1;
            byte
        };
        // A prefix VEX of three bytes: C4, then ~R ~X ~B and the map, then W, ~vvvv, L and what stands for an older prefix.
        if byte() != 0xc4 {
            return Err("not of the tile unit: no prefix VEX");
        }
        let (second, third, opcode, form) = (byte(), byte(), byte(), byte());
        let high = |bit: u8| usize::from(!second >> bit & 1) << 3;
        if second & 31 != 2 || third & 0x84 != 0 || high(7) != 0 {
            return Err("not of the tile unit: another map, or W, L or R is set");
        }
        let (vector, prefix) = (usize::from(!third >> 3 & 15), third & 3);
        let (mode, reg, rm) = (form >> 6, usize::from(form >> 3 & 7), usize::from(form & 7));
        let (np, f3, f2) = (0, 2, 3);
        if (opcode, prefix, mode) == (0x5e, f2, 3) {
            if vector > 7 || high(5) != 0 {
                return Err("a tile above 7");
            }
            return Ok((Self::Multiply { sums: reg, left: rm, right: vector }, len));
        }
        if vector != 0 {
            return Err("vvvv is not 1111");
        }
        match (opcode, prefix, mode, reg, rm) {
            (0x49, p, 3, 0, 0) if p == np => return Ok((Self::Release, len)),
            (0x49, p, 3, tile, 0) if p == f2 => return Ok((Self::Zero { tile }, len)),
            (_, _, 3, ..) => return Err("not an instruction that is emulated"),
            _ => {}
        }
        let (base, index) = match rm {
            4 => {
                let sib = byte();
                let number = high(6) | usize::from(sib >> 3 & 7);
                let index = if number == 4 { 0 } else { value(number) << (sib >> 6) };
                (usize::from(sib & 7), index)
            }
            _ if opcode == 0x4b => return Err("memory of a tile without an index"),
            _ => (rm, 0),
        };
        if mode == 0 && base == 5 {
            return Err("an address without a register is not emulated");
        }
        let displacement = match mode {
            0 => 0,
            1 => isize::from(byte() as i8),
            _ => i32::from_le_bytes(std::array::from_fn(|_| byte())) as isize,
        };
        let base = value(high(5) | base).wrapping_add_signed(displacement);
        let instruction = match (opcode, prefix) {
            (0x49, p) if p == np && reg == 0 => Self::Configure { from: base.wrapping_add(index) },
            (0x4b, p) if p == f2 => Self::Load { tile: reg, from: base, stride: index },
            (0x4b, p) if p == f3 => Self::Store { tile: reg, at: base, stride: index },
            _ => return Err("not an instruction that is emulated"),
        };
        Ok((instruction, len))
    }
}

/// The unit's state on a thread.
pub(super) struct Machine {
    /// Rows, and bytes of a row, where tiles are configured.
    shapes: Option<[(usize, usize); 8]>,
    tiles: [[[u8; 64]; 16]; 8],
}

impl Machine {
    pub(super) const fn new() -> Self {
        Self { shapes: None, tiles: [[[0; 64]; 16]; 8] }
    }

    /// SAFETY: memory that the instruction names may be read, or written.
    pub(super) unsafe fn execute(&mut self, instruction: Instruction) -> Result<(), &'static str> {
        // SAFETY: of each access, the caller's.
        match instruction {
            Instruction::Configure { from } => {
                let bytes = unsafe { (from as *const [u8; 64]).read_unaligned() };
                self.configure(&bytes)
            }
            Instruction::Release => {
                *self = Self::new();
                Ok(())
            }
            Instruction::Zero { tile } => {
                self.shape(tile)?;
                self.tiles[tile] = [[0; 64]; 16];
                Ok(())
            }
            Instruction::Load { tile, from, stride } => {
                let (rows, width) = self.shape(tile)?;
                self.tiles[tile] = [[0; 64]; 16];
                for (m, row) in self.tiles[tile][..rows].iter_mut().enumerate() {
                    let from = from.wrapping_add(m.wrapping_mul(stride)) as *const u8;
                    unsafe { from.copy_to_nonoverlapping(row.as_mut_ptr(), width) };
                }
                Ok(())
            }
            Instruction::Store { tile, at, stride } => {
                let (rows, width) = self.shape(tile)?;
                for (m, row) in self.tiles[tile][..rows].iter().enumerate() {
                    let at = at.wrapping_add(m.wrapping_mul(stride)) as *mut u8;
                    unsafe { at.copy_from_nonoverlapping(row.as_ptr(), width) };
                }
                Ok(())
            }
            Instruction::Multiply { sums, left, right } => self.multiply(sums, left, right),
        }
    }

    /// Byte 0 is the palette, 1 the first row, 16 to 47 are the widths of 16 tiles, 48 to 63 their rows.
    fn configure(&mut self, bytes: &[u8; 64]) -> Result<(), &'static str> {
        let width =
            |tile: usize| usize::from(u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]));
        let rows = |tile: usize| usize::from(bytes[48 + tile]);
        if bytes[0] == 0 {
            *self = Self::new();
            return Ok(());
        }
        if bytes[0] != 1 {
            return Err("LDTILECFG: no such palette");
        }
        if bytes[1] != 0 {
            return Err("LDTILECFG: a start row, which only an interrupted instruction has");
        }
        if bytes[2..16].iter().any(|byte| *byte != 0)
            || (8..16).any(|tile| width(tile) != 0 || rows(tile) != 0)
        {
            return Err("LDTILECFG: reserved bytes are not zero");
        }
        if (0..8).any(|tile| width(tile) > 64 || rows(tile) > 16) {
            return Err("LDTILECFG: a tile larger than 16 rows of 64 bytes");
        }
        if (0..8).any(|tile| (width(tile) == 0) != (rows(tile) == 0)) {
            return Err("LDTILECFG: a tile with rows and no columns, or columns and no rows");
        }
        *self = Self { shapes: Some(std::array::from_fn(|tile| (rows(tile), width(tile)))), ..Self::new() };
        Ok(())
    }

    fn shape(&self, tile: usize) -> Result<(usize, usize), &'static str> {
        let shapes = self.shapes.ok_or("no tiles are configured")?;
        if shapes[tile] == (0, 0) { Err("this tile is not configured") } else { Ok(shapes[tile]) }
    }

    /// `sums` is m by n, `left` m by k and `right` k by n, in fours of bytes.
    fn multiply(&mut self, sums: usize, left: usize, right: usize) -> Result<(), &'static str> {
        let (of_sums, of_left, of_right) = (self.shape(sums)?, self.shape(left)?, self.shape(right)?);
        if sums == left || sums == right || left == right {
            return Err("TDPBSSD: a tile twice");
        }
        if [of_sums, of_left, of_right].iter().any(|(_, width)| width % 4 != 0) {
            return Err("TDPBSSD: a width that is not in fours");
        }
        if of_sums.0 != of_left.0 || of_sums.1 != of_right.1 || of_left.1 / 4 != of_right.0 {
            return Err("TDPBSSD: shapes that do not fit");
        }
        let (left, right) = (self.tiles[left], self.tiles[right]);
        let mut rows = [[0; 64]; 16];
        for m in 0..of_sums.0 {
            for n in 0..of_sums.1 / 4 {
                let place = 4 * n..4 * n + 4;
                let old = self.tiles[sums][m][place.clone()].try_into().expect("four bytes");
                let mut sum = i32::from_le_bytes(old);
                for k in 0..of_right.0 {
                    for j in 0..4 {
                        let (a, b) = (left[m][4 * k + j] as i8, right[k][4 * n + j] as i8);
                        sum = sum.wrapping_add(i32::from(a) * i32::from(b));
                    }
                }
                rows[m][place].copy_from_slice(&sum.to_le_bytes());
            }
        }
        self.tiles[sums] = rows;
        Ok(())
    }
}
