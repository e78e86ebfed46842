//! What a request may use at most, and what it has used.

use crate::config::{Metering, OnLimit, Unmetered, Unreadable};
use crate::rule::Unit;
use tollgate_llm::{
    Answer, Api, Calibration, Endpoint, Limit, Price, Refused, Request, Sizes, Unmetered as Kind,
    Usage,
};

/// What is known of a request before it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    pub(crate) api: Api,
    pub(crate) model: Option<String>,
    /// The prompt's tokens: an upper bound in exact mode, else an estimate.
    pub(crate) prompt: u64,
    /// How many completions are generated.
    pub(crate) completions: u64,
    /// The tokens that each of them may have.
    pub(crate) each: u64,
    /// The limit to be written into the request.
    pub(crate) limit: Limit,
    /// The fewest tokens that the provider takes for a limit.
    pub(crate) least: u64,
    /// The price; `None` where nothing counts cost.
    pub(crate) price: Option<Price>,
    /// To learn from.
    pub(crate) sizes: Option<Sizes>,
    /// Whether usage events are to be hidden from the client, who did not ask for them.
    pub(crate) hide_usage: bool,
    /// What was read, to be edited; `None` where it is only estimated.
    pub(crate) request: Option<Request>,
}

/// Why a request is answered before any limit is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// The provider might read its body differently.
    Unreadable(Refused),
    /// Its tokens can't be counted, and the configuration wants such requests refused.
    Unmetered(Kind),
    /// The same, where no path and no body says what it is.
    Unknown,
    /// It asks for more completion tokens than one request may.
    Completion(u64),
    /// Its prompt is larger than one request's may be.
    Prompt(u64),
    /// Nothing bounds its prompt, and the mode is exact.
    Unbounded,
    /// Rules count cost, and this model has no price.
    NoPrice(String),
}

/// Which rules are for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    /// One at least.
    pub(crate) any: bool,
    /// One that counts cost.
    pub(crate) cost: bool,
}

/// The API that a request counts for which nobody has read.
const ESTIMATED: Api = Api::Chat;

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Reading {
    /// It is charged.
    Metered(Box<Demand>),
    /// It passes, and nothing is charged. The word tells why, for the metric.
    Free(&'static str),
    /// It is answered.
    Rejected(Rejected),
}

impl Metering {
    /// Whether a request to this endpoint is to be read; else what becomes of it is known.
    pub(crate) fn needs_body(&self, endpoint: &Endpoint) -> bool {
        match endpoint {
            Endpoint::Metered { .. } | Endpoint::Unknown => true,
            Endpoint::Unmetered(_) => self.unmetered == Unmetered::Estimate,
        }
    }

    /// Reads a request. `interest` tells which rules are for one to this API with this model.
    pub(crate) fn read(
        &self,
        endpoint: &Endpoint,
        body: &[u8],
        calibration: &dyn Fn(Option<&str>) -> Calibration,
        interest: &dyn Fn(Api, Option<&str>) -> Interest,
    ) -> Reading {
        let cost = interest(ESTIMATED, None).cost;
        let request = match endpoint {
            Endpoint::Unmetered(kind) => return self.unmetered(*kind, body, cost),
            _ if body.is_empty() => return Reading::Free("empty"),
            _ => Request::read(body, endpoint),
        };
        let request = match request {
            Ok(request) => request,
            Err(refused) => return self.unreadable(endpoint, refused, body, cost),
        };
        if request.background {
            return self.unmetered(Kind::Background, body, cost);
        }
        if !request.api.is_charged() {
            return Reading::Free("free");
        }
        let interest = interest(request.api, request.model.as_deref());
        match self.demand(request, calibration, interest) {
            Ok(demand) => Reading::Metered(Box::new(demand)),
            Err(rejected) => Reading::Rejected(rejected),
        }
    }

    fn demand(
        &self,
        request: Request,
        calibration: &dyn Fn(Option<&str>) -> Calibration,
        interest: Interest,
    ) -> Result<Demand, Rejected> {
        let model = request.model.as_deref();
        let sizes = Sizes::of(&request);
        let estimate = sizes.estimate(&calibration(model));
        let exact = self.exact && interest.any;
        let prompt = if exact {
            sizes.bound().ok_or(Rejected::Unbounded)?
        } else {
            estimate
        };
        if let Some(most) = self.most_prompt.filter(|most| estimate > *most) {
            return Err(Rejected::Prompt(most));
        }
        let default = self.default_completion.max(request.least_limit());
        let (each, limit) = if !request.api.completes() {
            (0, Limit::Keep)
        } else {
            match request.limit {
                Some(limit) => {
                    if let Some(most) = self.most_completion.filter(|most| limit > *most) {
                        return Err(Rejected::Completion(most));
                    }
                    (limit, Limit::Keep)
                }
                None if exact || self.most_completion.is_some() => {
                    (default, Limit::Default(default))
                }
                None => (default, Limit::Keep),
            }
        };
        let price = self.price(model, interest.cost)?;
        Ok(Demand {
            api: request.api,
            model: request.model.clone(),
            prompt,
            completions: request.completions,
            each,
            limit,
            least: request.least_limit(),
            price,
            sizes: Some(sizes),
            hide_usage: request.stream
                && matches!(request.api, Api::Chat | Api::Completions)
                && request.include_usage != Some(true),
            request: Some(request),
        })
    }

    fn price(&self, model: Option<&str>, cost: bool) -> Result<Option<Price>, Rejected> {
        if !cost {
            return Ok(None);
        }
        let model = model.unwrap_or_default();
        match self.pricing.price(model) {
            Some(price) => Ok(Some(*price)),
            None => Err(Rejected::NoPrice(model.to_owned())),
        }
    }

    fn unmetered(&self, kind: Kind, body: &[u8], cost: bool) -> Reading {
        // Reading what exists costs nothing.
        if matches!(kind, Kind::Models | Kind::Stored) {
            return Reading::Free("free");
        }
        match self.unmetered {
            Unmetered::Pass => Reading::Free(word(kind)),
            Unmetered::Refuse => Reading::Rejected(Rejected::Unmetered(kind)),
            Unmetered::Estimate => self.estimated(body, cost),
        }
    }

    fn unreadable(
        &self,
        endpoint: &Endpoint,
        refused: Refused,
        body: &[u8],
        cost: bool,
    ) -> Reading {
        let no_request = matches!(
            refused,
            Refused::Empty
                | Refused::Syntax(_)
                | Refused::Trailing(_)
                | Refused::Deep
                | Refused::NotAnObject
                | Refused::Unrecognised
        );
        // Neither path nor body has anything to do with an LLM.
        if *endpoint == Endpoint::Unknown && no_request {
            return match self.unmetered {
                Unmetered::Pass => Reading::Free("unknown"),
                Unmetered::Refuse => Reading::Rejected(Rejected::Unknown),
                Unmetered::Estimate => self.estimated(body, cost),
            };
        }
        match self.unreadable {
            Unreadable::Refuse => Reading::Rejected(Rejected::Unreadable(refused)),
            Unreadable::Estimate => self.estimated(body, cost),
        }
    }

    /// A demand by the size of a body that nobody has read.
    fn estimated(&self, body: &[u8], cost: bool) -> Reading {
        let price = match self.price(None, cost) {
            Ok(price) => price,
            Err(rejected) => return Reading::Rejected(rejected),
        };
        let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        Reading::Metered(Box::new(Demand {
            api: ESTIMATED,
            model: None,
            prompt: self.guess.tokens(bytes),
            completions: 1,
            each: self.default_completion,
            limit: Limit::Keep,
            least: 1,
            price,
            sizes: None,
            hide_usage: false,
            request: None,
        }))
    }
}

/// The word for a kind of request, in the metric.
pub(crate) fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Files => "files",
        Kind::Audio => "audio",
        Kind::Batches => "batches",
        Kind::Realtime => "realtime",
        Kind::Background => "background",
        Kind::ImageUploads => "image_uploads",
        Kind::Videos => "videos",
        Kind::Stateful => "stateful",
        Kind::Stored => "stored",
        Kind::Models => "models",
    }
}

impl Demand {
    fn with_each(&self, each: u64) -> Usage {
        Usage {
            prompt: Some(self.prompt),
            completion: Some(self.completions.saturating_mul(each)),
            ..Usage::default()
        }
    }

    /// What a rule is to reserve for it. What may come from a provider's cache is reserved at the full price, and what may be written
    /// there at whichever is dearer.
    pub(crate) fn amount(&self, unit: Unit) -> u64 {
        unit.of(&self.with_each(self.each), self.dearest().as_ref())
    }

    fn dearest(&self) -> Option<Price> {
        self.price.map(|price| {
            let input = price.input.max(price.cached_input).max(price.cache_write);
            Price {
                input,
                cached_input: input,
                cache_write: input,
                ..price
            }
        })
    }

    /// The completion tokens for each completion that fit into what is left of a rule; `None` where the prompt alone is too large.
    pub(crate) fn fitting(&self, unit: Unit, left: u64) -> Option<u64> {
        let fits = |each: u64| unit.of(&self.with_each(each), self.dearest().as_ref()) <= left;
        if !fits(0) {
            return None;
        }
        // The amount grows with `each`: the largest that fits, by halving.
        let (mut low, mut high) = (0, self.each);
        while low < high {
            let middle = high.saturating_sub(high.saturating_sub(low) / 2);
            if fits(middle) {
                low = middle;
            } else {
                high = middle.saturating_sub(1);
            }
        }
        Some(low)
    }

    /// Lowers its completions to so many tokens each.
    pub(crate) fn clamp(&mut self, each: u64) {
        self.each = each;
        self.limit = Limit::AtMost(each);
    }

    /// Whether it can be lowered at all.
    pub(crate) fn can_be_clamped(&self, metering: &Metering) -> bool {
        metering.on_limit == OnLimit::Clamp && self.each > 0 && self.request.is_some()
    }
}

/// How an answer ended, as far as charging goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The upstream told what it used.
    Told,
    /// It did not: what was seen is an estimate.
    Estimated,
    /// The client went, or the upstream broke off: an estimate of what was sent.
    Aborted,
    /// Nothing is charged: the upstream refused or failed, or a cache answered.
    Free,
}

/// What an answer used, so far as it was seen. Where the provider told, what it said; else an estimate by the text that came.
pub(crate) fn used(
    demand: &Demand,
    answer: &Answer,
    complete: bool,
    calibration: &Calibration,
) -> (Usage, Ending) {
    let text = calibration.completion(answer.text());
    let told = answer.usage();
    let ending = match told {
        Some(usage) if usage.prompt.is_some() && (complete || usage.completion.is_some()) => {
            Ending::Told
        }
        _ if complete => Ending::Estimated,
        _ => Ending::Aborted,
    };
    let told = told.unwrap_or_default();
    // A stream that was broken off may have told what it had used before its last words (Anthropic's does).
    let completion = if complete {
        told.completion.unwrap_or(text)
    } else {
        told.completion.unwrap_or_default().max(text)
    };
    let usage = Usage {
        prompt: Some(told.prompt.unwrap_or(demand.prompt)),
        completion: Some(completion),
        ..told
    };
    (usage, ending)
}
