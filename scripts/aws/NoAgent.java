import java.lang.instrument.Instrumentation;

/** LocalStack starts DynamoDB Local with its own agent, which lifts a limit of indexes; this one changes nothing. */
public final class NoAgent {
    public static void premain(String arguments, Instrumentation instrumentation) {}
}
