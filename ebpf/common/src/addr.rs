//! An IP address in one form for both families, so that keys and comparisons need no family switch.

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form, as the kernel's four big-endian words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Addr(pub [u32; 4]);

const MAPPED: u32 = 0xffff_u32.to_be();

impl Addr {
    /// `::`, which stands for "none" wherever an address may be missing.
    pub const UNSPECIFIED: Self = Self([0; 4]);
    /// `::1`.
    pub const LOOPBACK6: Self = Self([0, 0, 0, 1_u32.to_be()]);
    /// `127.0.0.1`.
    pub const LOOPBACK4: Self = Self::v4(0x7f00_0001_u32.to_be());

    /// An IPv4 address from its big-endian word.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// Whether this is IPv4 or IPv4-mapped: the IPv4 rules apply.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] | self.0[1] | (self.0[2] ^ MAPPED) == 0
    }

    /// The IPv4 address as a big-endian word; meaningful only where [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    /// `0.0.0.0` or `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let third = if self.0[2] == MAPPED { 0 } else { self.0[2] };
        self.0[0] | self.0[1] | third | self.0[3] == 0
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            u32::from_be(self.0[3]) >> 24 == 127
        } else {
            self.same(&Self::LOOPBACK6)
        }
    }

    /// What connecting to this address means, from a socket bound to `bound` (or unspecified): `0.0.0.0` is the
    /// socket's own address where it has one (`ip_route_output_key_hash`), and `::` is loopback (`tcp_v6_connect`).
    #[inline(always)]
    #[must_use]
    pub const fn meant_from(self, bound: &Self) -> Self {
        if !self.is_unspecified() {
            self
        } else if self.is_v4() {
            if bound.is_v4() && bound.v4_word() != 0 {
                *bound
            } else {
                Self::LOOPBACK4
            }
        } else if bound.is_v4() {
            Self::LOOPBACK4
        } else {
            Self::LOOPBACK6
        }
    }

    /// The loopback address of this address' family.
    #[inline(always)]
    #[must_use]
    pub const fn loopback_of_family(&self) -> Self {
        if self.is_v4() {
            Self::LOOPBACK4
        } else {
            Self::LOOPBACK6
        }
    }

    /// Equality with one branch: `==` on arrays becomes a call to `memcmp`, which BPF lacks, and every further branch
    /// doubles what the verifier walks through.
    #[inline(always)]
    pub const fn same(&self, other: &Self) -> bool {
        (self.0[0] ^ other.0[0])
            | (self.0[1] ^ other.0[1])
            | (self.0[2] ^ other.0[2])
            | (self.0[3] ^ other.0[3])
            == 0
    }
}
