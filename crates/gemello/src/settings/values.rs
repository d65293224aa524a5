//! Values that are text on the command line and in a file alike: each is read and written here.

use crate::engine::Choice;
use engine_soft::Tier;
use machine::Transport;
use std::time::Duration;
use x86::cpuid::CpuModel;

/// What is written as text. `parse` and `text` are each other's inverse.
pub(crate) trait Text: Sized {
    /// What to write, for who has written a number or a list.
    const SUCH_AS: &'static str;

    /// The value that `text` means.
    ///
    /// # Errors
    /// It means none; why, and what would.
    fn parse(text: &str) -> Result<Self, String>;

    /// As [`Text::parse`] reads it back.
    fn text(&self) -> String;
}

/// Bytes: a whole number with unit K, M or G, of 1024 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl Text for Size {
    const SUCH_AS: &'static str = "a size such as \"512M\"";

    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB") {
            "K" => 1 << 10,
            "M" => 1 << 20,
            "G" => 1 << 30,
            "" => return Err(format!("give a unit: {text}M, for instance")),
            _ => return Err("the unit is K, M or G: 512M, for instance".into()),
        };
        let number: u64 = digits.parse().map_err(|_| "no whole number: 512M, for instance")?;
        let bytes = number.checked_mul(unit).ok_or("more than 64 bits can count")?;
        Ok(Self(bytes))
    }

    fn text(&self) -> String {
        match self.0 {
            0 => "0K".into(),
            bytes if bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
            bytes if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
            bytes => format!("{}K", bytes >> 10),
        }
    }
}

/// Host time: a number with unit ms, s, m or h; without one, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

impl Text for Time {
    const SUCH_AS: &'static str = "a time such as \"30s\"";

    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err("the unit is ms, s, m or h: 30s, for instance".into()),
        };
        let number: f64 = digits.parse().map_err(|_| "no number: 30s, for instance")?;
        let time = Duration::try_from_secs_f64(number * unit).map_err(|e| e.to_string())?;
        if time.is_zero() { Err("zero is no time".into()) } else { Ok(Self(time)) }
    }

    fn text(&self) -> String {
        match self.0.subsec_nanos() {
            0 => format!("{}s", self.0.as_secs()),
            // All nine digits: what is read back is the same to the nanosecond.
            nanoseconds => format!("{}.{nanoseconds:09}s", self.0.as_secs()),
        }
    }
}

/// Bytes for translated code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodeCache(pub(crate) u64);

impl CodeCache {
    /// Below this much the translator does little else than to discard what it has just made.
    const LEAST: u64 = 1 << 20;
    /// Code reaches code by displacements of 32 bits.
    const MOST: u64 = 1 << 30;
}

impl Text for CodeCache {
    const SUCH_AS: &'static str = "a size such as \"64M\"";

    fn parse(text: &str) -> Result<Self, String> {
        match Size::parse(text)?.0 {
            ..Self::LEAST => Err("too little for translated code to last; give 1M or more".into()),
            size @ Self::LEAST..=Self::MOST => Ok(Self(size)),
            _ => Err("more than branches between translations reach; give 1G or less".into()),
        }
    }

    fn text(&self) -> String {
        Size(self.0).text()
    }
}

impl Text for CpuModel {
    const SUCH_AS: &'static str = "a model such as \"gemello-v2,+smap\"";

    fn parse(text: &str) -> Result<Self, String> {
        CpuModel::parse(text).map_err(|error| error.to_string())
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Text for Box<CpuModel> {
    const SUCH_AS: &'static str = CpuModel::SUCH_AS;

    fn parse(text: &str) -> Result<Self, String> {
        <CpuModel as Text>::parse(text).map(Box::new)
    }

    fn text(&self) -> String {
        (**self).text()
    }
}

impl Text for Tier {
    const SUCH_AS: &'static str = "a tier such as \"interp\"";

    fn parse(text: &str) -> Result<Self, String> {
        let unknown =
            || format!("no tier is called {text}; there are {}", list(Self::ALL, Self::name));
        Self::ALL.into_iter().find(|tier| tier.name() == text).ok_or_else(unknown)
    }

    fn text(&self) -> String {
        self.name().into()
    }
}

impl Text for Transport {
    const SUCH_AS: &'static str = "a transport such as \"pci\"";

    fn parse(text: &str) -> Result<Self, String> {
        let unknown =
            || format!("no transport is called {text}; there are {}", list(Self::ALL, Self::name));
        Self::ALL.into_iter().find(|transport| transport.name() == text).ok_or_else(unknown)
    }

    fn text(&self) -> String {
        self.name().into()
    }
}

impl Text for Choice {
    const SUCH_AS: &'static str = "an engine such as \"auto\"";

    fn parse(text: &str) -> Result<Self, String> {
        let unknown =
            || format!("no engine is called {text}; there are {}", list(Self::ALL, Self::name));
        Self::ALL.into_iter().find(|choice| choice.name() == text).ok_or_else(unknown)
    }

    fn text(&self) -> String {
        self.name().into()
    }
}

/// `on` or `off`.
///
/// # Errors
/// It is neither.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text} is neither on nor off")),
    }
}

fn list<T>(all: impl IntoIterator<Item = T>, name: impl Fn(T) -> &'static str) -> String {
    all.into_iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    #[test]
    fn sizes_and_times_have_units() {
        let size = |text| Size::parse(text).map(|size| size.0);
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_eq!(size("64KiB"), Ok(64 << 10));
        for wrong in ["512", "M", "-1M", "1.5G", "99999999999G", "5T", ""] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        let time = |text| Time::parse(text).map(|time| time.0);
        assert_eq!(time("30"), Ok(Duration::from_secs(30)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "s", "-1s", "0", "1d", "1e400s", "nan"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        let cache = |text| CodeCache::parse(text).map(|cache| cache.0);
        assert_eq!(cache("1M"), Ok(CodeCache::LEAST));
        assert_eq!(cache("1G"), Ok(CodeCache::MOST));
        for (wrong, advice) in [("0K", "1M"), ("1023K", "1M"), ("1025M", "1G"), ("64", "unit")] {
            assert!(cache(wrong).expect_err(wrong).contains(advice), "{wrong}");
        }
    }

    fn comes_back<T: Text + PartialEq + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            let value = T::parse(text).expect(text);
            assert_eq!(T::parse(&value.text()).as_ref(), Ok(&value), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        comes_back::<Size>(&["0K", "1K", "1025K", "512M", "1536M", "3G", "16777215G"]);
        comes_back::<Time>(&["1ms", "1.5s", "90m", "0.000000001s", "7.123456789s", "300h"]);
        comes_back::<CodeCache>(&["1M", "64M", "1G"]);
        comes_back::<CpuModel>(&["gemello-v2", "gemello-v2,+smap,-pcid", "gemello-v3,-avx2"]);
        comes_back::<Tier>(&["interp", "translate", "lockstep"]);
        comes_back::<Choice>(&["auto", "soft"]);
        comes_back::<Transport>(&["pci", "mmio"]);
    }
}
