//! What docs/cost.md counts is what the template deploys.

use keyway_tests::project;

use crate::deployments::deployments;
use crate::fronts::routes;

#[test]
fn cost_page_counts_the_routes_of_the_http_api() {
    let Some(deployment) = deployments().iter().find(|one| one.is_http_api()) else {
        return;
    };
    let stages = deployment.of_type("AWS::ApiGatewayV2::Stage");
    let stage = stages.values().next().unwrap();
    let data_keys = stage["RouteSettings"].as_object().unwrap().len();
    let others = routes(deployment).len() - data_keys;
    let rate = 50 * data_keys + 5 * others;
    // In thirty days, in millions.
    let month = (rate * 30 * 24 * 3600 + 500_000) / 1_000_000;
    let expected = format!(
        "{data_keys} data-key routes at 50 a second and {others} others at 5 are {rate} a second, {} million a month",
        with_comma(month)
    );
    let page = std::fs::read_to_string(project().join("docs/cost.md")).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        page.contains(&expected),
        "docs/cost.md does not say: {expected}"
    );
}

fn with_comma(number: usize) -> String {
    match (number / 1000, number % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}
