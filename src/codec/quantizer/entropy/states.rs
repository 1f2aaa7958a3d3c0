//! The machine of the trellis: which quantizer is next, and where its points stand.

/// States of the machine.
pub(crate) const STATES: usize = 1 << MEMORY;
const MEMORY: usize = 4;
/// Parity-check polynomials of Ungerboeck's code for amplitude modulation, octal 23 and 04 (1982, table I).
const PARITY_CHECKS: [usize; 2] = [0o23, 0o04];
/// Next state by state and parity of the index.
pub(crate) const NEXT: [[u8; 2]; STATES] = transitions();

/// The systematic encoder with feedback, in observer form: the lowest register is the bit that names the
/// quantizer.
pub(crate) const fn transitions() -> [[u8; 2]; STATES] {
    let mut next = [[0; 2]; STATES];
    let mut state = 0;
    while state < STATES {
        let quantizer = state & 1;
        let mut parity = 0;
        while parity < 2 {
            let feedback = (PARITY_CHECKS[0] * quantizer) ^ (PARITY_CHECKS[1] * parity);
            next[state][parity] = ((state ^ feedback) >> 1) as u8;
            parity += 1;
        }
        state += 1;
    }
    next
}

/// Largest index; what lies farther away is clipped and shows in the measured error.
pub(crate) const INDEX_MAX: i32 = 1 << 20;

/// Which quantizer a state reads.
pub(crate) fn quantizer_of(state: usize) -> usize {
    state & 1
}

pub(crate) fn next_state(state: usize, index: i32) -> usize {
    usize::from(NEXT[state][(index & 1) as usize])
}

/// The position of an index on the grid of steps.
pub(crate) fn point(quantizer: usize, index: i32) -> i32 {
    2 * index - if quantizer == 1 { index.signum() } else { 0 }
}
