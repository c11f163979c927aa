import java.util.concurrent.*;
import java.util.function.IntUnaryOperator;

/**
 * The jobs of BenchmarkLanguages on an ExecutorCompletionService, with platform threads and, where
 * the installed version has them, virtual ones. Prints lines as go test does. Run by the report, or
 * as: java Pool.java
 */
public class Pool {
    static long spin(int rounds, long x) {
        for (int i = 0; i < rounds; i++) x = x * 6364136223846793005L + 1442695040888963407L;
        return x;
    }

    static volatile long sink;

    static int calibrate(double nanos) {
        long best = Long.MAX_VALUE;
        for (int i = 0; i < 200; i++) {
            long begin = System.nanoTime();
            sink = spin(1 << 16, i);
            best = Math.min(best, System.nanoTime() - begin);
        }
        return (int) ((1 << 16) * nanos / best);
    }

    /** Submits n tasks and collects their results, at most 128 on their way. */
    static void run(ExecutorService executor, Semaphore workers, IntUnaryOperator work, int n) throws Exception {
        var service = new ExecutorCompletionService<Integer>(executor);
        long total = 0;
        int pending = 0;
        for (int i = 0; i < n; i++) {
            int task = i;
            service.submit(() -> {
                if (workers == null) return work.applyAsInt(task);
                workers.acquire();
                try {
                    return work.applyAsInt(task);
                } finally {
                    workers.release();
                }
            });
            if (++pending == 128) {
                total += service.take().get();
                pending--;
            }
        }
        for (; pending > 0; pending--) total += service.take().get();
        if (total != (long) n * (n + 1) / 2) throw new AssertionError("the sum is " + total);
    }

    static void measure(String impl, ExecutorService executor, boolean limited, int workers, String task, IntUnaryOperator work, int n) throws Exception {
        Semaphore limit = limited ? new Semaphore(workers) : null;
        run(executor, limit, work, n); // for the compiler
        long begin = System.nanoTime();
        run(executor, limit, work, n);
        double took = (double) (System.nanoTime() - begin) / n;
        System.out.printf("BenchmarkLanguages/task=%s/workers=%d/impl=%s-%d \t%d\t%.1f ns/op%n", task, workers, impl,
                Runtime.getRuntime().availableProcessors(), n, took);
        executor.shutdown();
    }

    public static void main(String[] args) throws Exception {
        int rounds = calibrate(20_000);
        IntUnaryOperator noop = task -> task + 1;
        IntUnaryOperator compute = task -> {
            sink = spin(rounds, task);
            return task + 1;
        };
        java.lang.reflect.Method virtual = null;
        try {
            virtual = Executors.class.getMethod("newVirtualThreadPerTaskExecutor");
        } catch (NoSuchMethodException e) {
            System.err.println("this Java has no virtual threads");
        }
        for (int workers : new int[] {1, 2, 8}) {
            measure("java-threads", Executors.newFixedThreadPool(workers), false, workers, "noop", noop, 200_000);
            measure("java-threads", Executors.newFixedThreadPool(workers), false, workers, "20µs", compute, 10_000);
            if (virtual == null) continue;
            measure("java-virtual", (ExecutorService) virtual.invoke(null), true, workers, "noop", noop, 200_000);
            measure("java-virtual", (ExecutorService) virtual.invoke(null), true, workers, "20µs", compute, 10_000);
        }
    }
}
