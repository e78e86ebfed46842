//! From a request to the script of its answer, and to what the ledger has to note of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Settings;
use super::answer::{Answer, Content, Form};
use super::api::{Api, Family};
use super::ledger::{Asked, KeyId, Ledger, Open};
use super::misbehaviour::Plan;
use super::openai::chat::Identity;
use super::openai::responses::Stored;
use super::openai::{chat, completions, embeddings, images, responses};
use super::prefixes::Prefixes;
use super::prompt::Ask;
use super::refusal::Refusal;
use super::reply::Reply;
use super::request::{GeminiAction, Request, Route};
use super::script::{Pace, Script};
use super::{anthropic, gemini};

/// The header in which a request says how it is to be treated.
const PLAN_HEADER: &str = "x-mock";

/// What separates a model's name from a plan.
const PLAN_MARK: char = '@';

/// The most ids of `fail=` that are counted.
const MOST_FAILURES: usize = 65_536;

/// The longest time that a reader of the ledger can wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The provider's state, shared by its threads.
pub(super) struct Provider {
    settings: Settings,
    /// The settings' models, to be named in the ledger without a copy.
    models: Vec<Arc<str>>,
    token: Duration,
    requests: AtomicU64,
    pub(super) ledger: Arc<Ledger>,
    prefixes: Prefixes,
    stored: Stored,
    /// How often each id of `fail=` failed.
    failures: Mutex<HashMap<String, u32>>,
}

/// A request's answer.
pub(super) struct Exchange {
    pub(super) script: Script,
    /// None for what is no request to a model: `/health`, `/ledger`.
    pub(super) open: Option<Open>,
    /// How long the answer may wait for all others to end.
    pub(super) patience: Option<Patience>,
}

/// A reader of the ledger who waits.
pub(super) struct Patience {
    pub(super) longest: Duration,
    pub(super) since: u64,
}

/// An answer, for which model it is, and what is done to it.
struct Served {
    answer: Answer,
    model: Option<Arc<str>>,
    plan: Plan,
}

/// The one field that every body has, read first.
#[derive(Deserialize)]
struct Named {
    model: Option<String>,
}

/// What is known of a request before its body is read.
struct Caller {
    api: Api,
    key: Option<KeyId>,
    number: u64,
    /// The request's own plan, by its header.
    plan: Option<Plan>,
}

impl Provider {
    pub(super) fn new(settings: Settings) -> Self {
        let token = settings
            .tokens_per_second
            .map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.get());
        Self {
            models: settings
                .models
                .iter()
                .map(|model| Arc::from(model.as_str()))
                .collect(),
            token,
            requests: AtomicU64::new(0),
            ledger: Arc::default(),
            prefixes: Prefixes::default(),
            stored: Stored::default(),
            failures: Mutex::default(),
            settings,
        }
    }

    /// The answer to a request; a refusal is an answer too.
    pub(super) fn respond(&self, request: &Request) -> Exchange {
        let route = Route::of(request.uri.path());
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let api = Route::api(route.as_ref(), request);
        match (&route, &request.method) {
            (Some(Route::Health), &Method::GET | &Method::HEAD) => {
                let health = json!({"status": "ok", "provider": self.settings.name});
                return self.unlisted(api, number, health);
            }
            (Some(Route::Ledger), &Method::DELETE) => {
                self.ledger.reset();
                self.lock_failures().clear();
                return self.unlisted(api, number, json!({"deleted": true}));
            }
            (Some(Route::Ledger), &Method::GET | &Method::HEAD) => {
                return self.read_ledger(request, number);
            }
            _ => {}
        }
        let mut caller = Caller {
            api,
            key: request.key_id(api.family()),
            number,
            plan: None,
        };
        let served = match route {
            Some(Route::Health | Route::Ledger) | None => Err(Refusal::NoSuchPath {
                method: request.method.clone(),
                path: request.uri.path().to_owned(),
            }),
            Some(ref route) => self.serve(&mut caller, route, request),
        };
        let served = served.unwrap_or_else(|refusal| Served {
            answer: self.refuse(&caller, route.as_ref(), &refusal),
            model: None,
            plan: caller.plan.clone().unwrap_or_default(),
        });
        self.exchange(&caller, served, request.accepts_gzip())
    }

    /// The answer to what came in place of a request.
    pub(super) fn respond_to_unreadable(&self, refusal: &Refusal) -> Exchange {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let caller = Caller {
            api: Api::Unknown(Family::OpenAi),
            key: None,
            number,
            plan: None,
        };
        let served = Served {
            answer: Answer::refusal(caller.api, refusal),
            model: None,
            plan: Plan::default(),
        };
        self.exchange(&caller, served, false)
    }

    fn refuse(&self, caller: &Caller, route: Option<&Route>, refusal: &Refusal) -> Answer {
        let mut answer = Answer::refusal(caller.api, refusal);
        if matches!(refusal, Refusal::WrongMethod { .. })
            && let Some(methods) = route.and_then(Route::methods)
        {
            let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
            answer.headers.push(("allow", names.join(", ")));
        }
        answer
    }

    fn exchange(&self, caller: &Caller, served: Served, accepts_gzip: bool) -> Exchange {
        let Served {
            mut answer,
            model,
            plan,
        } = served;
        let request: Arc<str> = format!("req_{}_{}", self.settings.name, caller.number).into();
        let header = caller.api.family().request_id_header();
        answer.headers.push((header, request.to_string()));
        if caller.api.family() == Family::Anthropic
            && !answer.status.is_success()
            && let Content::Whole { document, .. } = &mut answer.content
        {
            document["request_id"] = json!(&*request);
        }
        let asked = Asked {
            request,
            key: caller.key,
            model,
            api: caller.api,
            status: answer.status.as_u16(),
            streamed: matches!(answer.content, Content::Events { .. }),
            usage: answer.usage,
            plan: plan.to_string(),
        };
        let pace = self.pace(&plan, caller.number);
        Exchange {
            script: Script::new(answer, plan, pace, accepts_gzip),
            open: Some(self.ledger.open(asked)),
            patience: None,
        }
    }

    fn unlisted(&self, api: Api, number: u64, document: Value) -> Exchange {
        let plan = Plan::default();
        let mut pace = self.pace(&plan, number);
        pace.first_token_delay = Duration::ZERO;
        Exchange {
            script: Script::new(Answer::whole(api, document), plan, pace, false),
            open: None,
            patience: None,
        }
    }

    fn read_ledger(&self, request: &Request, number: u64) -> Exchange {
        let api = Api::Unknown(Family::OpenAi);
        let whole_number = |name: &str| match request.parameter(name).map(|text| text.parse()) {
            None => Ok(0),
            Some(Ok(number)) => Ok(number),
            Some(Err(_)) => Err(()),
        };
        match (whole_number("since"), whole_number("wait")) {
            (Ok(since), Ok(wait)) => {
                let mut exchange = self.unlisted(api, number, Value::Null);
                exchange.patience = Some(Patience {
                    longest: Duration::from_secs(wait).min(LONGEST_WAIT),
                    since,
                });
                exchange
            }
            _ => self.respond_to_unreadable(&Refusal::Invalid {
                field: "since, wait",
                rule: "must be whole numbers",
            }),
        }
    }

    /// The answer to a reader of the ledger, once it is time.
    pub(super) fn ledger_script(&self, since: u64) -> Script {
        let document = self.ledger.document(&self.settings.name, since);
        self.unlisted(Api::Unknown(Family::OpenAi), 0, document)
            .script
    }

    fn pace(&self, plan: &Plan, number: u64) -> Pace {
        let token = plan
            .rate
            .map_or(self.token, |rate| Duration::from_secs(1) / rate.get());
        Pace {
            first_token_delay: plan.delay.unwrap_or(self.settings.first_token_delay),
            token,
            jitter: plan.jitter.unwrap_or_default(),
            random: fastrand::Rng::with_seed(plan.seed.unwrap_or(self.settings.seed ^ number)),
        }
    }

    fn serve(
        &self,
        caller: &mut Caller,
        route: &Route,
        request: &Request,
    ) -> Result<Served, Refusal> {
        if let Some(methods) = route.methods()
            && !methods.contains(&request.method)
            && !(request.method == Method::HEAD && methods.contains(&Method::GET))
        {
            return Err(Refusal::WrongMethod {
                method: request.method.clone(),
                path: request.uri.path().to_owned(),
            });
        }
        self.check_key(caller.api.family(), request)?;
        if let Some(value) = request.headers.get(PLAN_HEADER) {
            caller.plan = Some(String::from_utf8_lossy(value.as_bytes()).parse()?);
        }
        let free = |caller: &Caller, document: Value| {
            let plan = self.plan(caller, None, None);
            self.free(caller, plan, document)
        };
        match route {
            Route::WhoAmI => {
                let path = request.uri.path();
                let document = json!({
                    "provider": self.settings.name,
                    "method": request.method.as_str(),
                    "path": request.uri.path_and_query().map_or(path, |target| target.as_str()),
                    "headers": header_lines(&request.headers),
                });
                Ok(free(caller, document))
            }
            Route::Models if caller.api == Api::AnthropicModels => {
                Ok(free(caller, anthropic::models(&self.settings.models)))
            }
            Route::GeminiModels | Route::Models if caller.api == Api::GeminiModels => {
                let ids = self.settings.models.iter();
                let models: Value = ids.map(|id| gemini::model(id)).collect();
                Ok(free(caller, json!({"models": models})))
            }
            Route::Models => {
                let models: Value = self
                    .settings
                    .models
                    .iter()
                    .map(|id| self.model(id))
                    .collect();
                Ok(free(caller, json!({"object": "list", "data": models})))
            }
            Route::Model(id) | Route::GeminiModel(id) => {
                self.known(id)?;
                Ok(match caller.api {
                    Api::AnthropicModels => free(caller, anthropic::model(id)),
                    Api::GeminiModels => free(caller, gemini::model(id)),
                    _ => free(caller, self.model(id)),
                })
            }
            Route::Response(id) if request.method == Method::DELETE => {
                let document = self.stored.remove(id)?;
                Ok(free(caller, document))
            }
            Route::Response(id) => {
                let document = self.stored.document(id)?;
                Ok(free(caller, document))
            }
            Route::Gemini(action, model) => self.ask_gemini(caller, *action, model, request),
            _ => {
                if caller.api.family() == Family::Anthropic
                    && !request.headers.contains_key("anthropic-version")
                {
                    return Err(Refusal::Missing {
                        field: "anthropic-version",
                    });
                }
                let named: Named = request.json()?;
                let named = named.model.ok_or(Refusal::Missing { field: "model" })?;
                self.ask(caller, route, &named, request)
            }
        }
    }

    /// An answer without a model, or the error that the plan wants instead.
    fn free(&self, caller: &Caller, plan: Plan, document: Value) -> Served {
        let answer = match plan.status {
            Some(status) => Answer::refusal(caller.api, &Refusal::Told { status }),
            None => Answer::whole(caller.api, document),
        };
        Served {
            answer,
            model: None,
            plan,
        }
    }

    /// An answer of a model, or the error that the plan wants instead.
    fn ask(
        &self,
        caller: &mut Caller,
        route: &Route,
        named: &str,
        request: &Request,
    ) -> Result<Served, Refusal> {
        self.with_model(caller, named, |name, identity, plan| {
            Ok(match route {
                Route::Chat => {
                    let (ask, style) = request.json::<chat::Request>()?.read(name.to_owned())?;
                    let reply = self.reply(caller, &ask, plan, true);
                    chat::answer(identity, &style, reply)
                }
                Route::Completions => {
                    let (asks, style) = request.json::<completions::Request>()?.read(name)?;
                    let reply = completions::reply(&asks, &self.settings.name, plan.size);
                    completions::answer(&identity, style, reply)
                }
                Route::Responses => {
                    let raw: responses::Request = request.json()?;
                    let (ask, style) = raw.read(name.to_owned(), &self.stored)?;
                    let reply = self.reply(caller, &ask, plan, true);
                    responses::answer(identity, &style, ask, reply, &self.stored)
                }
                Route::Embeddings => request.json::<embeddings::Request>()?.answer(name)?,
                Route::Images => request
                    .json::<images::Request>()?
                    .answer(identity.created)?,
                Route::CountTokens => {
                    anthropic::count(&request.json::<anthropic::Request>()?.prompt()?)
                }
                _ => {
                    let (ask, style) = request
                        .json::<anthropic::Request>()?
                        .read(name.to_owned())?;
                    let reply = self.reply(caller, &ask, plan, style.caches);
                    anthropic::answer(identity, style, reply)
                }
            })
        })
    }

    fn ask_gemini(
        &self,
        caller: &mut Caller,
        action: GeminiAction,
        named: &str,
        request: &Request,
    ) -> Result<Served, Refusal> {
        self.with_model(caller, named, |name, identity, plan| {
            let style = match action {
                GeminiAction::Count => return request.json::<gemini::CountRequest>()?.answer(),
                GeminiAction::Embed => return request.json::<gemini::EmbedRequest>()?.answer(name),
                GeminiAction::BatchEmbed => {
                    return request.json::<gemini::BatchEmbedRequest>()?.answer(name);
                }
                GeminiAction::Generate => gemini::Style::Whole,
                GeminiAction::Stream if request.parameter("alt").as_deref() == Some("sse") => {
                    gemini::Style::Streamed(Form::Sse)
                }
                GeminiAction::Stream => gemini::Style::Streamed(Form::Array),
            };
            let ask = request.json::<gemini::Request>()?.read(name.to_owned())?;
            let reply = self.reply(caller, &ask, plan, true);
            Ok(gemini::answer(identity, style, reply))
        })
    }

    /// Takes the plan off a model's name, and makes the answer of that model unless the plan is an error.
    fn with_model(
        &self,
        caller: &Caller,
        named: &str,
        make: impl FnOnce(&str, Identity, &Plan) -> Result<Answer, Refusal>,
    ) -> Result<Served, Refusal> {
        let (name, own) = match named.split_once(PLAN_MARK) {
            Some((name, plan)) => (name, Some(plan.parse()?)),
            None => (named, None),
        };
        let model = self.known(name)?;
        let plan = self.plan(caller, own, Some(name));
        let identity = Identity {
            id: format!("{}-{}", self.settings.name, caller.number),
            created: unix_seconds(),
            model: name.to_owned(),
        };
        // The request is judged first: one that can't be served is no test of a gateway's retries.
        let made = make(name, identity, &plan)?;
        let answer = match plan.status {
            Some(status) => Answer::refusal(caller.api, &Refusal::Told { status }),
            None => made,
        };
        Ok(Served {
            answer,
            model: Some(model),
            plan,
        })
    }

    fn reply(&self, caller: &Caller, ask: &Ask, plan: &Plan, remembers: bool) -> Reply {
        let mut reply = ask.reply(&self.settings.name, plan.size);
        // An error writes nothing to the cache.
        if remembers && plan.status.is_none() {
            let key = caller.key.map(KeyId::text).unwrap_or_default();
            self.prefixes
                .charge(&key, &ask.model, &ask.prompt, &mut reply.usage);
        }
        reply
    }

    /// What is done to a request: its header's plan, else its model's, else the first configured one that strikes.
    fn plan(&self, caller: &Caller, own: Option<Plan>, model: Option<&str>) -> Plan {
        let plan = caller.plan.clone().or(own).unwrap_or_else(|| {
            let mut faults = self.settings.faults.iter().zip(0_u64..);
            let struck = faults.find(|(fault, index)| {
                let whom = fault.model.as_deref();
                let seed = self.settings.seed ^ (caller.number << 8) ^ *index;
                whom.is_none_or(|whom| model == Some(whom))
                    && fastrand::Rng::with_seed(seed).f64() < fault.probability
            });
            struck
                .map(|(fault, _)| fault.plan.clone())
                .unwrap_or_default()
        });
        let Some(times) = plan.fail else {
            return plan;
        };
        let id = plan.id.clone().unwrap_or_else(|| {
            let key = caller.key.map(KeyId::text).unwrap_or_default();
            format!("{key} {}", model.unwrap_or_default())
        });
        let mut failures = self.lock_failures();
        if failures.len() >= MOST_FAILURES {
            failures.clear();
        }
        let count = failures.entry(id).or_default();
        if *count < times {
            *count += 1;
            plan.failing()
        } else {
            Plan::default()
        }
    }

    fn lock_failures(&self) -> std::sync::MutexGuard<'_, HashMap<String, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn model(&self, id: &str) -> Value {
        json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": self.settings.name})
    }

    fn known(&self, name: &str) -> Result<Arc<str>, Refusal> {
        let model = self.models.iter().find(|known| &***known == name);
        model.cloned().ok_or_else(|| Refusal::NoSuchModel {
            model: name.to_owned(),
        })
    }

    fn check_key(&self, family: Family, request: &Request) -> Result<(), Refusal> {
        if self.settings.api_keys.is_empty() {
            return Ok(());
        }
        let key = request.key(family).ok_or(Refusal::NoKey { family })?;
        if self.settings.api_keys.contains(&key) {
            Ok(())
        } else {
            Err(Refusal::WrongKey { family })
        }
    }
}

/// Each header's values in the order they came, by lower-case name.
fn header_lines(headers: &HeaderMap) -> Value {
    let lines = headers.keys().map(|name| {
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        (name.as_str().to_owned(), json!(values))
    });
    Value::Object(lines.collect::<Map<_, _>>())
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
