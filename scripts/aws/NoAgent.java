import java.lang.instrument.Instrumentation;

/** LocalStack starts DynamoDB Local with an agent of its own, which lifts a limit of indexes; this one changes nothing. */
public final class NoAgent {
    public static void premain(String arguments, Instrumentation instrumentation) {}
}
