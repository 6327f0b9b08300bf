// Every route of the table: which listener has it, and who may ask.
#include "server/openai/route_table.h"

#include <set>
#include <thread>

#include "tests/unit/server/openai/frontend_fixture.h"

namespace tessera::openai {
namespace {

const std::set<std::string> kProbes = {"/health", "/livez", "/readyz"};
const std::set<std::string> kOpen = {"/", "/health", "/livez", "/readyz"};
const std::set<std::string> kForOperators = {"/metrics", "/cluster"};
constexpr const char* kKey = "secret-1";

class RouteTableTest : public FrontendFixture {
 protected:
  RouteTableTest() {
    options_.api_keys = {kKey};
    cluster_json_ = [] { return std::string("{}"); };
  }

  /// A path of each route.
  static std::vector<std::string> paths() {
    std::vector<std::string> paths;
    for (const Route& route : all_routes()) {
      paths.emplace_back(route.path);
      paths.back() += route.path == kModelsPrefix ? "demo" : "";
    }
    return paths;
  }
  int status(const std::string& method, const std::string& path, const http::Headers& headers) {
    const auto exchange = send({method, path, "", headers, "{}", ""});
    return answer_of(*exchange).status;
  }
  int status_for_operators(const std::string& method, const std::string& path) {
    auto exchange = std::make_shared<http::FakeExchange>();
    frontend().handle_operator({method, path, "", {}, "", ""}, exchange);
    return answer_of(*exchange).status;
  }
};

TEST_F(RouteTableTest, EveryRouteButProbesAndThePageAsksForAKeyWhateverTheMethod) {
  using Statuses = std::vector<bool>;  // 401 without a key, with a wrong one, with the right one
  for (const std::string& path : paths()) {
    for (const char* method : {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "x"}) {
      const bool is_closed = kOpen.count(path) == 0;
      const Statuses found = {status(method, path, {}) == 401,
                              status(method, path, {{"x-api-key", "wrong"}}) == 401,
                              status(method, path, {{"x-api-key", kKey}}) == 401};
      EXPECT_EQ(found, (Statuses{is_closed, is_closed, false})) << method << " " << path;
    }
  }
}

TEST_F(RouteTableTest, SpellingsOfAPathOpenNothing) {
  for (const char* path : {"//metrics",
                           "/metrics/",
                           "/health/../metrics",
                           "/Metrics",
                           "/readyz/x",
                           "/livez?x",
                           "",
                           "*",
                           "/v1/models/../../metrics"}) {
    EXPECT_EQ(status("GET", path, {}), 401) << path;
  }
}

TEST_F(RouteTableTest, WithoutAListenerOfTheirOwnOperatorsUseThePublicOne) {
  for (const std::string& path : kForOperators) {
    EXPECT_EQ(status("GET", path, {{"x-api-key", kKey}}), 200) << path;
  }
}

TEST_F(RouteTableTest, WithAListenerOfTheirOwnThePublicOneLacksWhatIsForOperators) {
  options_.has_operator_port = true;
  for (const std::string& path : paths()) {
    const bool is_gone = status("GET", path, {{"x-api-key", kKey}}) == 404;
    EXPECT_EQ(is_gone, kForOperators.count(path) == 1) << path;
    EXPECT_EQ(status("GET", path, {}) == 401, kOpen.count(path) == 0) << path;
  }
}

TEST_F(RouteTableTest, TheOperatorsListenerHasMetricsClusterProbesAndPageWithoutAKey) {
  options_.has_operator_port = true;
  for (const std::string& path : paths()) {
    const bool is_here = kForOperators.count(path) + kOpen.count(path) > 0;
    EXPECT_EQ(status_for_operators("GET", path), is_here ? 200 : 404) << path;
    EXPECT_EQ(status_for_operators("POST", path), is_here ? 405 : 404) << path;
  }
}

TEST_F(RouteTableTest, ProbesSayTheSameOnBothListeners) {
  options_.has_operator_port = true;
  options_.liveness = [] { return unavailable("stalled"); };
  service_.set_readiness(unavailable("draining"));
  for (const std::string& path : kProbes) {
    EXPECT_EQ(status("GET", path, {}), 503) << path;
    EXPECT_EQ(status_for_operators("GET", path), 503) << path;
  }
}

TEST_F(RouteTableTest, BothListenersMayAskAtOnce) {
  options_.has_operator_port = true;
  EXPECT_EQ(status("GET", "/readyz", {}), 200);  // makes the front end
  std::thread operators([this] {
    for (int i = 0; i < 50; ++i) {
      EXPECT_EQ(status_for_operators("GET", i % 2 == 0 ? "/metrics" : "/readyz"), 200);
    }
  });
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(status("GET", i % 2 == 0 ? "/v1/models" : "/", {{"x-api-key", kKey}}), 200);
  }
  operators.join();
}

}  // namespace
}  // namespace tessera::openai
