use super::super::recorded::{self, Case, config};
use super::*;

fn teams(settings: &str) -> Teams {
    Teams::new(&config(&format!("{{url: 'https://acme.webhook.office.com/webhookb2/s3cret1'{settings}}}")))
        .unwrap()
}

#[test]
fn requests_are_clickdetects_and_its_broken_cards_are_whole() {
    let one = |yaml: &str| Box::new(Teams::new(&config(yaml)).unwrap()) as Box<dyn Webhook>;
    recorded::compare("teams", one, &[("teams", "quotes"), ("teams-all", "quotes")]);
    let card = recorded::body(&Case::recorded("quotes").compose(&teams("")));
    assert_eq!(card["summary"], "say \"hello\" \\n C:\\new");
    assert_eq!(card["sections"][0]["activitySubtitle"], "line one\nline \"two\"\n\n\ttabbed \\ end");
    assert_eq!(
        card["sections"][0]["facts"][2],
        serde_json::json!({"name": "Tags", "value": "t\"1\", back\\slash"})
    );
}

#[test]
fn a_workflow_gets_an_adaptive_card_and_a_connector_a_message_card() {
    let kind = |url: &str, format: &str| {
        let teams = Teams::new(&config(&format!("{{url: '{url}', format: {format}}}"))).unwrap();
        let body = recorded::body(&Case::new().compose(&teams));
        body.get("@type").or(body.get("type")).unwrap().as_str().unwrap().to_owned()
    };
    for workflow in [
        "https://prod-23.westeurope.logic.azure.com:443/workflows/1/triggers/manual/paths/invoke?sig=x",
        "https://Default1.ae.environment.API.powerplatform.com:443/powerautomate/automations/direct/workflows/1/triggers/manual/paths/invoke?sig=x",
        "https://emea.flow.microsoft.com/x",
    ] {
        assert_eq!(kind(workflow, "auto"), "message", "{workflow}");
        assert_eq!(kind(workflow, "message_card"), "MessageCard", "{workflow}");
    }
    for other in [
        "https://acme.webhook.office.com/webhookb2/1",
        "http://127.0.0.1:9/x",
        "https://logic.azure.com.evil.example/",
    ] {
        assert_eq!(kind(other, "auto"), "MessageCard", "{other}");
        assert_eq!(kind(other, "adaptive_card"), "message", "{other}");
    }
}

#[test]
fn an_adaptive_card_says_what_the_message_card_says() {
    let update = Case { is_update: true, triage: recorded::done(), ..Case::new() };
    let old = recorded::body(&update.compose(&teams("")));
    let new = recorded::body(&update.compose(&teams(", format: adaptive_card")));
    let blocks = new["attachments"][0]["content"]["body"].as_array().unwrap();
    let texts: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
    let [one, two] = [&old["sections"][0], &old["sections"][1]];
    assert_eq!(
        texts.iter().map(|text| serde_json::Value::from(*text)).collect::<Vec<_>>(),
        [&old["text"], &one["activityTitle"], &one["activitySubtitle"], &two["activityTitle"]]
            .map(Clone::clone)
    );
    let facts = |facts: &serde_json::Value, name: &str| -> Vec<(String, String)> {
        let text = |fact: &serde_json::Value, key: &str| fact[key].as_str().unwrap().to_owned();
        facts.as_array().unwrap().iter().map(|fact| (text(fact, name), text(fact, "value"))).collect()
    };
    let sets: Vec<_> = blocks.iter().filter(|block| block["type"] == "FactSet").collect();
    assert_eq!(sets.len(), 2);
    assert_eq!(facts(&sets[0]["facts"], "title"), facts(&one["facts"], "name"));
    assert_eq!(facts(&sets[1]["facts"], "title"), facts(&two["facts"], "name"));
    assert_eq!(facts(&sets[1]["facts"], "title").len(), 9);
}

#[test]
fn what_a_log_says_is_no_link_no_image_and_no_html() {
    let hostile = "[bank](http://evil.example) ![x](http://evil.example/a.png) <a href='x'>b</a> <at>all</at> a < b <1>";
    for settings in [
        "",
        ", format: adaptive_card",
        r#", template: '{"text": "{{ data.value[0].user }}", "all": {{ data.value | tojson }}}'"#,
    ] {
        let body = recorded::body(&Case::with_user(hostile).compose(&teams(settings))).to_string();
        assert!(!body.contains("](") && !body.contains("<a") && !body.contains("</a"), "{body}");
        assert!(body.contains("[bank]\u{200b}(http://evil.example)") && body.contains("a < b <1>"), "{body}");
    }
}

#[test]
fn a_card_is_no_larger_than_teams_takes() {
    for settings in ["", ", format: adaptive_card"] {
        let teams = teams(settings);
        for filler in ["ä", "\"", "\\", "x"] {
            let request = Case::with_user(&filler.repeat(60_000)).compose(&teams);
            assert!((27_900..=28_000).contains(&request.body.len()), "{filler}: {}", request.body.len());
            assert!(recorded::body(&request).to_string().contains("(cut: see `watchpost alerts`)"));
        }
        let mut wordy = Case::new();
        wordy.alert.rule["description"] = "ö".repeat(40_000).into();
        assert!(wordy.compose(&teams).body.len() <= 28_000);
    }
}

#[test]
fn an_update_says_what_it_belongs_to() {
    let update = Case { is_update: true, triage: recorded::done(), ..Case::new() };
    let card = recorded::body(&update.compose(&teams("")));
    assert!(
        card["text"].as_str().unwrap().starts_with("[UPDATE] What triage says of the alert `SSH login loop`")
    );
}

#[test]
fn answers_mean_what_their_body_says() {
    let judge = |status, body: &str| teams("").judge(&recorded::answer(status, body));
    let later = Meaning::Later { after: None };
    let failed = |code| {
        format!(
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error {code} with ContextId tcid=0"
        )
    };
    assert_eq!(
        (judge(200, "1"), judge(202, ""), judge(200, "")),
        (Meaning::Delivered, Meaning::Delivered, Meaning::Delivered)
    );
    assert_eq!((judge(200, &failed("429")), judge(200, &failed("503"))), (later, later));
    assert_eq!(
        (judge(200, &failed("413")), judge(200, &failed("403"))),
        (Meaning::Refused, Meaning::Refused)
    );
    assert_eq!(judge(200, "Webhook message delivery failed with error: something"), later);
    assert_eq!(judge(200, "<!DOCTYPE html><title>Sign in"), later);
    assert_eq!((judge(400, "Bad payload"), judge(429, ""), judge(502, "")), (Meaning::Refused, later, later));
}

#[test]
fn the_webhooks_path_is_never_shown() {
    let teams = teams("");
    let request = Case::new().compose(&teams);
    let shown = format!("{request:?} {} {:?}", request.to.url, teams.destination());
    assert!(!shown.contains("s3cret1"), "{shown}");
    let error = recorded::refused::<Config>("{url: 'https://a.example', format: cards}");
    insta::assert_snapshot!(error, @"format: `cards` is not a format: write `auto`, `adaptive_card` or `message_card`");
}
