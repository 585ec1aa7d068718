use super::*;
use crate::models::{ModelError, Origin, embed};

#[test]
fn a_name_is_found_in_any_case_with_and_without_its_ending() {
    let place = Place::new();
    place.write("models/Small-Model.Q4_1.gguf", &tiny::gguf("x"));
    for word in ["Small-Model.Q4_1", "small-model.q4_1", "SMALL-MODEL.Q4_1.GGUF"] {
        let model = place.registry().resolve(word).unwrap();
        assert_eq!((model.name.as_str(), model.origin), ("Small-Model.Q4_1", Origin::Folder));
    }
}

#[test]
fn a_path_comes_before_every_name_and_is_relative_to_the_runner() {
    let place = Place::new();
    place.write("models/one.gguf", &tiny::gguf("in the folder"));
    let beside = place.write("one.gguf", &tiny::gguf("beside the runner"));
    let model = place.registry().resolve("one.gguf").unwrap();
    assert_eq!((model.source.path, model.origin), (beside, Origin::Path));
    assert_eq!(place.registry().resolve("one").unwrap().origin, Origin::Folder);
    let error = place.registry().resolve("elsewhere/one.gguf").unwrap_err();
    assert!(matches!(error, ModelError::Read { .. }), "{error}");
}

#[test]
fn the_model_inside_the_executable_comes_before_the_folders() {
    let place = Place::new();
    place.write("models/one.gguf", &tiny::gguf("one"));
    let one = place.registry().resolve("one").unwrap();
    embed::embed(&place.path("program"), &one, &place.path("full"), false, &mut |_, _| ()).unwrap();
    let registry = Registry::at(place.folder.path().into(), Some(place.path("full")), [place.models()]);
    let model = registry.resolve("ONE").unwrap();
    assert_eq!((model.origin, &model.source.path), (Origin::Embedded, &place.path("full")));
    assert_eq!(registry.found().unwrap().len(), 1, "of two with one name the first counts");
}

#[test]
fn a_missing_model_says_where_was_looked_what_is_near_and_how_to_get_it() {
    let place = Place::new();
    let missing = |name: &str| place.registry().resolve(name).unwrap_err().to_string();
    let looked =
        format!("looked in this executable (it carries none), `{}` (not there)", place.models().display());
    assert_eq!(
        missing("smollm2-135m-instrukt"),
        format!(
            "no model `smollm2-135m-instrukt`; did you mean `SmolLM2-135M-Instruct`?; {looked}: get it with \
             `watchpost model import FILE`; `watchpost model list` shows what is known"
        )
    );
    assert_eq!(
        missing("smollm2-135m-instruct"),
        format!(
            "no model `smollm2-135m-instruct`; {looked}: get it with `watchpost model import FILE` or, with a \
             network, `watchpost model pull SmolLM2-135M-Instruct`"
        )
    );
}

#[test]
fn a_new_model_goes_to_the_first_folder_that_exists() {
    let place = Place::new();
    let (one, two) = (place.path("one"), place.path("two"));
    let registry = Registry::at(PathBuf::new(), None, [one.clone(), two.clone()]);
    assert_eq!(registry.install_folder(), one);
    std::fs::create_dir(&two).unwrap();
    assert_eq!(registry.install_folder(), two);
}

#[test]
fn half_written_and_hidden_files_are_no_models() {
    let place = Place::new();
    place.write("models/.one.gguf.12.part", b"");
    place.write("models/.two.gguf", &tiny::gguf("two"));
    place.write("models/notes.txt", b"");
    assert!(place.registry().found().unwrap().is_empty());
}
