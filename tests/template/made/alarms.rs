//! The alarms: three of each function that is called often, and one of each API and of the function URL.

use std::fmt::Write as _;

/// The metric that an alarm watches.
struct Alarm<'a> {
    name: String,
    condition: &'a str,
    description: String,
    namespace: &'a str,
    metric: &'a str,
    dimension: String,
    statistic: &'a str,
    periods: u8,
    threshold: &'a str,
}

/// The functions with alarms of their own: resource, name, condition, the number of slow periods that raise the alarm,
/// and the limit of slowness.
const FUNCTIONS: [(&str, &str, &str, u8, &str); 5] = [
    ("Keys", "keys", "HttpApiAlarms", 3, "!Ref SlowMilliseconds"),
    (
        "Datakey",
        "datakey",
        "HttpApiAlarms",
        3,
        "!Ref SlowMilliseconds",
    ),
    (
        "Service",
        "service",
        "HttpApiAlarms",
        3,
        "!Ref SlowMilliseconds",
    ),
    (
        "All",
        "all",
        "OneFunctionAlarms",
        3,
        "!Ref SlowMilliseconds",
    ),
    (
        "Janitor",
        "janitor",
        "AlarmsOn",
        1,
        "240000 # of the 300000 after which it is stopped",
    ),
];

/// The name of the HTTP API's alarm. Gradual deployments name it so: a reference to the alarm would need the API, which
/// needs the aliases, which need the deployments.
pub(super) const API_ERRORS: &str = "!Sub \"${AWS::StackName}-api-errors\"";

fn of_functions() -> Vec<Alarm<'static>> {
    let mut alarms = Vec::new();
    for (resource, name, condition, slow_periods, slow) in FUNCTIONS {
        let alarm = |kind, description, metric, statistic, periods, threshold| Alarm {
            name: format!("{resource}{kind}Alarm"),
            condition,
            description,
            namespace: "AWS/Lambda",
            metric,
            dimension: format!("{{Name: FunctionName, Value: !Ref {resource}Function}}"),
            statistic,
            periods,
            threshold,
        };
        let failed = format!("the {name} function failed");
        let throttled = format!("the {name} function was throttled");
        let is_slow = format!("one in a hundred invocations of the {name} function is slow");
        alarms.extend([
            alarm("Errors", failed, "Errors", "Statistic: Sum", 1, "0"),
            alarm(
                "Throttles",
                throttled,
                "Throttles",
                "Statistic: Sum",
                1,
                "0",
            ),
            alarm(
                "Slow",
                is_slow,
                "Duration",
                "ExtendedStatistic: p99",
                slow_periods,
                slow,
            ),
        ]);
    }
    alarms
}

fn of_fronts() -> Vec<Alarm<'static>> {
    let front = |name: &str, condition, what: &str, namespace, metric, dimension: &str| Alarm {
        name: format!("{name}ErrorsAlarm"),
        condition,
        description: format!("{what} answered 5xx"),
        namespace,
        metric,
        dimension: dimension.to_owned(),
        statistic: "Statistic: Sum",
        periods: 1,
        threshold: "0",
    };
    let (api, lambda) = ("AWS/ApiGateway", "AWS/Lambda");
    vec![
        front(
            "Api",
            "HttpApiAlarms",
            "the API",
            api,
            "5xx",
            "{Name: ApiId, Value: !Ref Api}",
        ),
        // A REST API is watched by its name.
        front(
            "KesApi",
            "KesApiAlarms",
            "KES's API",
            api,
            "5XXError",
            "{Name: ApiName, Value: !Sub \"${AWS::StackName}-kes\"}",
        ),
        front(
            "Url",
            "FunctionUrlAlarms",
            "the function URL",
            lambda,
            "Url5xxCount",
            "{Name: FunctionName, Value: !Ref AllFunction}",
        ),
    ]
}

pub(super) fn block() -> String {
    let mut text = String::new();
    for alarm in of_functions().into_iter().chain(of_fronts()) {
        let Alarm {
            name,
            condition,
            description,
            namespace,
            metric,
            dimension,
            statistic,
            periods,
            threshold,
        } = alarm;
        let chosen = if name == "ApiErrorsAlarm" {
            format!("\n      AlarmName: {API_ERRORS}")
        } else {
            String::new()
        };
        write!(
            text,
            "
  {name}:
    Type: AWS::CloudWatch::Alarm
    Condition: {condition}
    Properties:{chosen}
      AlarmDescription: !Sub \"${{AWS::StackName}}: {description}\"
      Namespace: {namespace}
      MetricName: \"{metric}\"
      Dimensions: [{dimension}]
      {statistic}
      Period: 300
      EvaluationPeriods: {periods}
      ComparisonOperator: GreaterThanThreshold
      Threshold: {threshold}
      TreatMissingData: notBreaching
      AlarmActions: !If [AlarmTopicGiven, [!Ref AlarmTopicArn], !Ref \"AWS::NoValue\"]
      OKActions: !If [AlarmTopicGiven, [!Ref AlarmTopicArn], !Ref \"AWS::NoValue\"]
"
        )
        .unwrap();
    }
    text
}
