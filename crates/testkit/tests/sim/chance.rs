//! Chance and time of a simulated world: both come from its seed, on the thread that runs it and on no other.
//!
//! Ids, tokens, jitters and the order of hash maps all come down to the C library's `getrandom`, and the wall clock to its
//! `clock_gettime`. This test program has both itself, so that no product code needs a switch: on a thread that called [`begin`] the
//! bytes follow from the seed, and the time is that of the paused runtime; on every other thread they are the kernel's.
#![expect(unsafe_code, reason = "two functions of the C library are replaced")]
use nix::libc::{self, c_int, c_uint, c_void, clockid_t, timespec};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::{
    cell::Cell,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// 2026-01-01T00:00:00Z.
const EPOCH: i64 = 1_767_225_600;
/// Far ahead of any machine's, so that no wait of the runtime for a helper thread ends early.
const MONOTONIC: i64 = 1_000_000_000;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// From now on this thread's chance follows from the seed. Call it before anything on the thread asks for any.
pub(crate) fn begin(seed: u64) {
    STATE.set(Some(seed));
}

/// From now on this thread's wall clock is that of its paused runtime.
pub(crate) fn start_clock() {
    START.set(Some(Instant::now()));
}

fn splitmix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (state, z ^ (z >> 31))
}

/// As the C library's.
///
/// # Safety
/// `buffer` must have room for `length` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let Some(mut state) = STATE.get() else {
        // SAFETY: the kernel is given what we were given.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as isize;
    };
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller promises so much room.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        let word;
        (state, word) = splitmix(state);
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    STATE.set(Some(state));
    length as isize
}

/// As the C library's.
///
/// # Safety
/// `out` must point to a `timespec`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: clockid_t, out: *mut timespec) -> c_int {
    if STATE.get().is_none() {
        // SAFETY: the kernel is given what we were given.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) } as c_int;
    }
    let time = if clock == libc::CLOCK_REALTIME {
        let passed = START.get().map_or(Duration::ZERO, |start| start.elapsed());
        timespec { tv_sec: EPOCH + passed.as_secs() as i64, tv_nsec: passed.subsec_nanos().into() }
    } else {
        timespec { tv_sec: MONOTONIC, tv_nsec: 0 }
    };
    // SAFETY: the caller promises that it points to one.
    unsafe { out.write(time) };
    0
}

/// A source of chance for one part of the world, so that parts do not disturb each other's draws.
pub(crate) struct Dice(Mutex<StdRng>);

impl Dice {
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        let (_, mixed) = splitmix(seed ^ part.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Self(Mutex::new(StdRng::seed_from_u64(mixed)))
    }
    fn rng(&self) -> MutexGuard<'_, StdRng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// In `0..most`.
    pub(crate) fn below(&self, most: usize) -> usize {
        if most == 0 { 0 } else { self.rng().random_range(0..most) }
    }
    pub(crate) fn seed(&self) -> u64 {
        self.rng().random()
    }
    pub(crate) fn chance(&self, of: f64) -> bool {
        self.rng().random_bool(of)
    }
    pub(crate) fn seconds(&self, range: Range<f64>) -> Duration {
        Duration::from_secs_f64(self.rng().random_range(range))
    }
    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.choose(&mut self.rng())
    }
    pub(crate) fn shuffle<T>(&self, of: &mut [T]) {
        rand::seq::SliceRandom::shuffle(of, &mut *self.rng());
    }
}
