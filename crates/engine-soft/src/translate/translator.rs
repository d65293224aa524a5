//! What one virtual processor has of translated code: its share of the machine's code cache, and
//! what it alone needs to make and run translations.

use super::cache::{Asker, TranslationCache};
use super::context::Context;
use super::epochs::Member;
use super::figures::Figures;
use super::generation::{Generation, Options};
use super::recipe::Recipe;
use crate::thunk;
use iced_x86::InstructionInfoFactory;
use std::sync::Arc;
use vcpu::{Signal, Signals};

/// Runs of a block in the interpreter before it is translated.
pub(crate) const HOT: u32 = 14;

/// See the module.
pub(crate) struct Translator {
    pub(super) cache: Arc<TranslationCache>,
    /// The generation that this processor runs. All that it remembers by number or by offset is of
    /// that one.
    pub(super) member: Member<Generation>,
    /// The cache's, up to which this processor's host has taken note of code that has changed.
    pub(super) version: u64,
    pub(super) factory: InstructionInfoFactory,
    pub(super) bmi2: bool,
    /// The interpreter runs the same code for comparison: both must read the same time.
    pub(crate) compared: bool,
    pub(super) figures: Figures,
    /// The status flags with which a per-access translation was entered, unless they were lost.
    pub(super) noted: Option<u16>,
    /// The last exit recovered flags that a check had overwritten.
    pub(crate) recovered: bool,
    /// Counters for `--stats`.
    pub(crate) instructions: u64,
    pub(crate) blocks: u64,
    pub(crate) links: u64,
    pub(crate) exits: u64,
    pub(crate) faults: u64,
}

impl Translator {
    /// The share of a processor, with `signals`, in `cache`.
    pub(crate) fn new(cache: Arc<TranslationCache>, signals: Arc<Signals>) -> Self {
        let host = thunk::HostFeatures::probe();
        let member = cache.join(Box::new(move || signals.raise(Signal::Changes)));
        Self {
            cache,
            member,
            version: 0,
            factory: InstructionInfoFactory::new(),
            bmi2: host.has(thunk::Feature::Bmi2),
            compared: false,
            figures: Figures::default(),
            noted: None,
            recovered: false,
            instructions: 0,
            blocks: 0,
            links: 0,
            exits: 0,
            faults: 0,
        }
    }

    /// The code cache that it shares.
    pub(crate) fn cache(&self) -> &Arc<TranslationCache> {
        &self.cache
    }

    /// The generation that this processor runs; `None`: it does not run.
    #[inline(always)]
    pub(super) fn generation(&self) -> Option<&Generation> {
        self.member.held()
    }

    /// What its translations do.
    pub(super) fn options(&self) -> Options {
        self.generation().map_or_else(Options::default, |generation| generation.options)
    }

    /// Has all processors' translations do what `options` say, too.
    pub(super) fn demand(&self, options: Options) {
        self.cache.demand(options);
    }

    /// Whether the translation with number `region` is still good.
    #[inline(always)]
    pub(super) fn alive(&self, region: u32) -> bool {
        self.generation().is_some_and(|generation| generation.is_alive(region))
    }

    /// As which this processor asks the cache.
    pub(super) fn asker(&self, behind: bool) -> Asker {
        Asker { number: self.member.number(), behind }
    }

    /// The figures for `--stats`.
    pub(crate) fn statistics(&self, counted: &Context) -> vcpu::Translator {
        let (code_used, code_capacity) = self.cache.usage();
        vcpu::Translator {
            looked_up: counted.looked_up,
            entered: counted.entered,
            code_used,
            code_capacity,
            ..self.figures.statistics()
        }
    }
}

/// What an exit to the interpreter led to when it was taken before.
#[derive(Debug)]
pub(crate) struct CachedExit<B> {
    pub(super) site: u32,
    pub(super) block: *const B,
    /// The block cache's, in which `block` is alive.
    pub(super) epoch: u64,
    pub(super) delta: i32,
    pub(super) undone: u16,
    pub(super) recipe: Option<Recipe>,
}

impl<B> CachedExit<B> {
    pub(super) const NONE: Self = Self {
        site: u32::MAX,
        block: std::ptr::null(),
        epoch: u64::MAX,
        delta: 0,
        undone: 0,
        recipe: None,
    };
}
