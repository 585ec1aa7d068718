use super::*;
use crate::models::install::Imported;
use crate::models::known::{Hub, Known};
use crate::models::pull::{self, Options, fetch};
use crate::models::{ModelError, install};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use std::fs;
use std::sync::{Arc, Mutex};
use watchpost_engine::Source;

/// What the hub has, and what it was asked.
#[derive(Clone)]
struct FakeHub {
    file: Arc<Vec<u8>>,
    etag: &'static str,
    asked: Arc<Mutex<Vec<String>>>,
    endpoint: String,
}

impl FakeHub {
    /// A hub on a port of its own, until the process ends.
    fn start(file: Vec<u8>, etag: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let hub = Self { file: Arc::new(file), etag, asked: Arc::default(), endpoint };
        let served = hub.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let path = "/someone/tiny-GGUF/resolve/c0ffee/tiny.gguf";
                let answer = move |headers: HeaderMap| async move { served.answer(&headers) };
                axum::serve(listener, axum::Router::new().route(path, axum::routing::get(answer))).await
            })
        });
        hub
    }

    fn answer(&self, headers: &HeaderMap) -> impl IntoResponse + use<> {
        let range = headers[header::RANGE].to_str().unwrap();
        self.asked.lock().unwrap().push(range.into());
        assert!(!headers.contains_key(header::AUTHORIZATION), "no token leaves");
        let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (from, len) = (from.parse::<usize>().unwrap(), self.file.len());
        let to = to.parse::<usize>().map_or(len, |to| to + 1);
        let content_range = format!("bytes {from}-{}/{len}", to - 1);
        let headers = [
            (header::ETAG, self.etag.to_owned()),
            (header::HeaderName::from_static("x-repo-commit"), "c0ffee".into()),
            (header::CONTENT_RANGE, content_range),
        ];
        match self.file.get(from..to).filter(|body| !body.is_empty()) {
            Some(body) => (StatusCode::PARTIAL_CONTENT, headers, body.to_vec()).into_response(),
            None => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        }
    }

    fn fetch(&self, known: &Known, place: &Place) -> Result<Imported, ModelError> {
        let options = Options { endpoint: Some(self.endpoint.clone()), sha256: None };
        fetch(known, known.hub.as_ref().unwrap(), &place.models(), &options, &mut |_, _| ())
    }
}

/// What models.toml would say of these bytes.
fn known(bytes: &[u8]) -> Known {
    let place = Place::new();
    let hash = Source::file(place.write("model", bytes)).unwrap().sha256().unwrap();
    Known {
        name: "tiny".into(),
        file: "tiny.gguf".into(),
        architecture: "llama".into(),
        quantization: "F32".into(),
        bytes: bytes.len() as u64,
        sha256: Some(hash),
        licence: "Apache-2.0".into(),
        context_length: 128,
        memory_bytes: 0,
        hub: Some(Hub {
            repository: "someone/tiny-GGUF".into(),
            revision: "c0ffee".into(),
            file: "tiny.gguf".into(),
        }),
        wheel: None,
    }
}

#[test]
fn a_pulled_model_is_checked_and_recorded_and_not_pulled_again() {
    let place = Place::new();
    let bytes = tiny::gguf("tiny");
    let hub = FakeHub::start(bytes.clone(), "\"abc\"");
    let pulled = hub.fetch(&known(&bytes), &place).unwrap();
    assert_eq!(fs::read(&pulled.path).unwrap(), bytes);
    assert_eq!(names(&place.models()), ["tiny.gguf", "tiny.gguf.sha256"]);
    assert_eq!(install::recorded(&pulled.path).unwrap(), known(&bytes).sha256);
    let asked = hub.asked.lock().unwrap().len();
    hub.fetch(&known(&bytes), &place).unwrap();
    assert_eq!(hub.asked.lock().unwrap().len(), asked, "it is here already");
}

#[test]
fn a_file_with_another_hash_is_thrown_away() {
    let place = Place::new();
    let mut bytes = tiny::gguf("tiny");
    let known = known(&bytes);
    *bytes.last_mut().unwrap() ^= 1;
    let error = FakeHub::start(bytes, "\"abc\"").fetch(&known, &place).unwrap_err();
    assert!(matches!(error, ModelError::WrongHash { .. }), "{error}");
    assert!(names(&place.models()).is_empty());
}

#[test]
fn a_file_of_another_size_is_not_even_downloaded() {
    let place = Place::new();
    let bytes = tiny::gguf("tiny");
    let hub = FakeHub::start([bytes.as_slice(), b"more"].concat(), "\"abc\"");
    let error = hub.fetch(&known(&bytes), &place).unwrap_err();
    assert!(error.to_string().contains("models.toml says"), "{error}");
    assert_eq!(*hub.asked.lock().unwrap(), ["bytes=0-0"]);
}

#[test]
fn a_download_that_was_cut_off_goes_on_where_it_ended() {
    let place = Place::new();
    let bytes = tiny::gguf("tiny");
    let hub = FakeHub::start(bytes.clone(), "\"abc\"");
    let part = "models/.pull-tiny/models--someone--tiny-GGUF/blobs/abc.part";
    place.write(part, &bytes[..100]);
    hub.fetch(&known(&bytes), &place).unwrap();
    assert_eq!(hub.asked.lock().unwrap().last().unwrap(), "bytes=100-");
    // What cannot go on begins anew.
    let place = Place::new();
    place.write(part, &bytes);
    hub.fetch(&known(&bytes), &place).unwrap();
    assert_eq!(hub.asked.lock().unwrap().last().unwrap(), "bytes=0-");
}

#[test]
fn a_hub_cannot_choose_where_its_file_goes() {
    let place = Place::new();
    let bytes = tiny::gguf("tiny");
    for etag in ["\"../../../../up\"", "\"/tmp/watchpost-up\"", "\"\""] {
        let error = FakeHub::start(bytes.clone(), etag).fetch(&known(&bytes), &place).unwrap_err();
        assert!(error.to_string().contains("its answer made no sense"), "{etag}: {error}");
    }
    assert_eq!(names(place.folder.path()), ["program"]);
}

#[test]
fn without_a_network_the_other_way_is_named() {
    let place = Place::new();
    let known = known(&tiny::gguf("tiny"));
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options { endpoint: Some(format!("http://{address}")), sha256: None };
    let error =
        fetch(&known, known.hub.as_ref().unwrap(), &place.models(), &options, &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, ModelError::Hub { .. }), "{error}");
    assert!(error.to_string().contains("`watchpost model import FILE`"), "{error}");
    assert_eq!(names(place.folder.path()), ["program"]);
}

#[test]
fn nothing_is_fetched_without_a_hash_or_under_an_unknown_name() {
    let place = Place::new();
    let bytes = tiny::gguf("tiny");
    let hub = FakeHub::start(bytes.clone(), "\"abc\"");
    let unhashed = Known { sha256: None, ..known(&bytes) };
    let error = hub.fetch(&unhashed, &place).unwrap_err();
    assert!(matches!(error, ModelError::NoHash { .. }), "{error}");
    let error = pull::pull("smollm2", &place.models(), &Options::default(), &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, ModelError::NotKnown { .. }), "{error}");
    assert!(hub.asked.lock().unwrap().is_empty());

    let given = |sha256: &str, known: &Known| {
        let options = Options { endpoint: Some(hub.endpoint.clone()), sha256: Some(sha256.into()) };
        fetch(known, known.hub.as_ref().unwrap(), &place.models(), &options, &mut |_, _| ())
    };
    assert!(matches!(given("abc", &unhashed), Err(ModelError::Hash { .. })));
    assert!(matches!(given(&"0".repeat(64), &known(&bytes)), Err(ModelError::WrongHash { .. })));
    given(&known(&bytes).sha256.unwrap().to_uppercase(), &unhashed).unwrap();
}
