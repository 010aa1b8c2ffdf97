"""PostgreSQL's own tests have the same result through the proxy as directly, test by test."""
import regress


def judged(world, run):
    """Runs it directly and through the proxy against one cluster, and compares."""
    world.pair(max_connections=200, max_prepared_transactions=50)
    d = world.daemon(unmanaged="pass", log={"level": "info"})
    direct = run(world.blue.port, world.folder, "direct")
    assert len(direct.outcomes) > 5 and list(direct.outcomes.values()).count("ok") > 0.9 * len(direct.outcomes), direct.output
    proxied = run(d.port, world.folder, "proxied")
    found, same = regress.compare(direct, proxied)
    # with tests of another minor version than the server's, some fail directly: then both must have printed the same
    failed = sorted(test for test, outcome in direct.outcomes.items() if outcome != "ok")
    print("%d tests are the same, %d differ; directly, too, these fail: %s" % (same, len(found), " ".join(failed) or "none"))
    assert not found, "\n".join(found)


if regress.HOME:  # what fetch.sh printed

    def test_regression(world):
        judged(world, regress.regression)

    def test_libpq_pipeline(world):
        judged(world, regress.pipeline)

    def test_isolation(world):
        judged(world, regress.isolation)

    test_regression.timeout = 600
    test_isolation.timeout = 900
