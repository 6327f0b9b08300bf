// Routes, keys, health and metrics.
#include "tests/unit/server/openai/frontend_fixture.h"

namespace tessera::openai {
namespace {

using Json = nlohmann::json;

class FrontendTest : public FrontendFixture {
 protected:
  http::Response request(const std::string& method,
                         const std::string& path,
                         http::Headers headers = {}) {
    const auto exchange = send({method, path, "", std::move(headers), "{}", ""});
    return answer_of(*exchange);
  }
};

TEST_F(FrontendTest, RefusesIncompleteOptions) {
  const OpenAiFrontend::Parts parts = {service_, tokenizer_, [](metrics::FamilyList&) {}, nullptr};
  OpenAiOptions no_name = options_;
  no_name.served_model_names.clear();
  EXPECT_EQ(OpenAiFrontend::create(no_name, parts).status().code(), StatusCode::kInvalidArgument);
  OpenAiOptions no_length = options_;
  no_length.max_model_len = 0;
  EXPECT_EQ(OpenAiFrontend::create(no_length, parts).status().code(), StatusCode::kInvalidArgument);
  OpenAiOptions no_threads = options_;
  no_threads.num_prompt_threads = 0;
  EXPECT_EQ(OpenAiFrontend::create(no_threads, parts).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(FrontendTest, ListsModels) {
  Json body = json_of(get("/v1/models"));
  ASSERT_EQ(body["data"].size(), 2U);
  EXPECT_GT(body["data"][0]["created"].get<int64_t>(), 1'700'000'000);
  body["data"][0]["created"] = 0;
  EXPECT_EQ(body["data"][0],
            Json::parse(R"({"id":"demo","object":"model","created":0,"owned_by":"tessera",
                            "root":"org/demo","parent":null,"max_model_len":100})"));
}

TEST_F(FrontendTest, ShowsOneModelByName) {
  options_.served_model_names = {"org/name"};
  EXPECT_EQ(json_of(get("/v1/models/org/name"))["id"], "org/name");
  const http::Response missing = get("/v1/models/other");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(json_of(missing)["error"]["code"], "model_not_found");
}

TEST_F(FrontendTest, RefusesUnknownUrls) {
  for (const char* path :
       {"/v1", "/v1/embeddings", "/cluster", "/v1/models/", "/v1/chat/completions/"}) {
    const http::Response response = request("POST", path);
    EXPECT_EQ(response.status, 404) << path;
    EXPECT_EQ(json_of(response)["error"]["code"], "unknown_url") << path;
  }
}

TEST_F(FrontendTest, ShowsTheConsoleToEverybodyUnderAStrictPolicy) {
  options_.api_keys = {"secret-1"};
  const http::Response response = get("/");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.content_type, "text/html; charset=utf-8");
  EXPECT_EQ(response.body.find("secret-1"), std::string::npos);
  const std::string policy = header_of(response, "Content-Security-Policy");
  EXPECT_TRUE(policy.starts_with("default-src 'none'; script-src 'sha256-")) << policy;
  EXPECT_EQ(policy.find("unsafe"), std::string::npos) << policy;
  EXPECT_EQ(header_of(response, "X-Content-Type-Options"), "nosniff");
  EXPECT_EQ(request("POST", "/").status, 405);
}

TEST_F(FrontendTest, HasNoConsoleWhenItIsNotWanted) {
  options_.has_console = false;
  EXPECT_EQ(get("/").status, 404);
}

TEST_F(FrontendTest, ShowsTheClusterToThoseWithAKey) {
  options_.api_keys = {"secret-1"};
  cluster_json_ = [] { return std::string(R"({"workers":[]})"); };
  EXPECT_EQ(get("/cluster").status, 401);
  const http::Response response = get("/cluster", {{"x-api-key", "secret-1"}});
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, R"({"workers":[]})");
}

TEST_F(FrontendTest, PassesTheTraceOfTheHeaderOn) {
  const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const auto given = post("/v1/completions", R"({"prompt":["a","b"]})", {{"Traceparent", trace}});
  ASSERT_TRUE(given->run_until([&] { return service_.num_submitted() == 2; }));
  EXPECT_EQ(service_.request(0).trace.traceparent(), trace);
  EXPECT_EQ(service_.request(1).trace.traceparent(), trace);
}

TEST_F(FrontendTest, BeginsATraceWhenTheHeaderIsMissingOrWrong) {
  const auto none = post("/v1/completions", R"({"prompt":"a"})");
  ASSERT_TRUE(none->run_until([&] { return service_.num_submitted() == 1; }));
  const auto wrong = post("/v1/completions", R"({"prompt":"a"})", {{"traceparent", "00-x"}});
  ASSERT_TRUE(wrong->run_until([&] { return service_.num_submitted() == 2; }));
  EXPECT_TRUE(service_.request(0).trace.is_valid());
  EXPECT_TRUE(service_.request(1).trace.is_valid());
  EXPECT_NE(service_.request(0).trace.trace_id(), service_.request(1).trace.trace_id());
}

TEST_F(FrontendTest, NamesTheAllowedMethods) {
  const http::Response posted = request("POST", "/v1/models");
  EXPECT_EQ(posted.status, 405);
  EXPECT_EQ(header_of(posted, "Allow"), "GET, HEAD");
  const http::Response got = get("/v1/completions");
  EXPECT_EQ(got.status, 405);
  EXPECT_EQ(header_of(got, "Allow"), "POST");
}

TEST_F(FrontendTest, AnswersHeadWhereGetIsAllowed) {
  EXPECT_EQ(request("HEAD", "/health").status, 200);
  EXPECT_EQ(request("HEAD", "/v1/models").status, 200);
}

TEST_F(FrontendTest, TakesOnlyJsonBodies) {
  const auto status = [&](const http::Headers& headers) {
    return request("POST", "/v1/completions", headers).status;
  };
  EXPECT_EQ(status({}), 415);
  EXPECT_EQ(status({{"Content-Type", "text/plain"}}), 415);
  EXPECT_EQ(status({{"Content-Type", "application/x-www-form-urlencoded"}}), 415);
  EXPECT_EQ(status({{"Content-Type", "application/json"}}), 400) << "accepted, then no prompt";
  EXPECT_EQ(status({{"content-type", "Application/JSON ; charset=utf-8"}}), 400);
}

TEST_F(FrontendTest, SaysThatAKeyIsMissing) {
  options_.api_keys = {"secret-1", "secret-2"};
  for (const char* path : {"/v1/models", "/metrics", "/nowhere"}) {
    const http::Response response = get(path);
    EXPECT_EQ(response.status, 401) << path;
    EXPECT_EQ(header_of(response, "WWW-Authenticate"), "Bearer");
    EXPECT_EQ(json_of(response)["error"]["code"], "invalid_api_key");
  }
}

TEST_F(FrontendTest, AcceptsEveryKeyInEitherHeader) {
  options_.api_keys = {"secret-1", "secret-2"};
  const auto status = [&](const std::string& name, const std::string& value) {
    return get("/v1/models", {{name, value}}).status;
  };
  EXPECT_EQ(status("Authorization", "Bearer secret-1"), 200);
  EXPECT_EQ(status("authorization", "bearer  secret-2"), 200);
  EXPECT_EQ(status("X-Api-Key", "secret-2"), 200);
  EXPECT_EQ(status("Authorization", "Bearer secret-3"), 401);
  EXPECT_EQ(status("Authorization", "Bearer secret-1 "), 401);
  EXPECT_EQ(status("Authorization", "Bearer "), 401);
  EXPECT_EQ(status("Authorization", "Basic secret-1"), 401);
  EXPECT_EQ(status("Authorization", "secret-1"), 401);
  EXPECT_EQ(status("x-api-key", ""), 401);
}

TEST_F(FrontendTest, TakesNewKeysInPlaceOfOldOnes) {
  options_.api_keys = {"old"};
  EXPECT_EQ(get("/v1/models", {{"x-api-key", "old"}}).status, 200);
  frontend().replace_api_keys({"new"});
  EXPECT_EQ(get("/v1/models", {{"x-api-key", "old"}}).status, 401);
  EXPECT_EQ(get("/v1/models", {{"x-api-key", "new"}}).status, 200);
}

TEST_F(FrontendTest, TellsReadinessFromLife) {
  service_.set_readiness(unavailable("draining"));
  EXPECT_EQ(get("/livez").status, 200);
  EXPECT_EQ(get("/readyz").status, 503);
  EXPECT_EQ(get("/health").status, 503);
  EXPECT_EQ(header_of(get("/readyz"), "Retry-After"), "1");
  service_.set_readiness(Status::ok());
  EXPECT_EQ(get("/readyz").status, 200);
  EXPECT_EQ(get("/ping").status, 200);
}

TEST_F(FrontendTest, AsksTheGivenHookForLife) {
  options_.liveness = [] { return unavailable("engine stalled for 60 s"); };
  EXPECT_EQ(get("/livez").status, 503);
  EXPECT_EQ(get("/readyz").status, 200);
}

TEST_F(FrontendTest, ShowsItsVersion) {
  EXPECT_EQ(json_of(get("/version")), Json::parse(R"({"version":"1.2.3"})"));
}

TEST_F(FrontendTest, ShowsEveryMetricFromTheStart) {
  const http::Response response = get("/metrics");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.content_type, "text/plain; version=0.0.4; charset=utf-8");
  for (const char* series :
       {"tessera_requests_running{model_name=\"demo\"} 0",
        "tessera_requests_waiting{model_name=\"demo\"} 0",
        "tessera_cache_blocks_used{model_name=\"demo\"} 0",
        "tessera_cache_usage_ratio{model_name=\"demo\"} 0",
        "tessera_prompt_tokens_total{model_name=\"demo\"} 0",
        "tessera_generation_tokens_total{model_name=\"demo\"} 0",
        "tessera_requests_finished_total{model_name=\"demo\",finished_reason=\"stop\"} 0",
        "tessera_requests_finished_total{model_name=\"demo\",finished_reason=\"error\"} 0",
        "tessera_time_to_first_token_seconds_count{model_name=\"demo\"} 0",
        "tessera_inter_token_seconds_bucket{model_name=\"demo\",le=\"+Inf\"} 0",
        "tessera_http_requests_total{model_name=\"demo\",route=\"chat_completions\",status=\"5xx\"}"
        " 0",
        "tessera_http_requests_total{model_name=\"demo\",route=\"other\",status=\"4xx\"} 0",
        "tessera_http_open_connections{model_name=\"demo\"} 0",
        "tessera_http_open_streams{model_name=\"demo\"} 0",
        "tessera_request_unknown_fields_total{model_name=\"demo\"} 0"}) {
    EXPECT_NE(response.body.find(series), std::string::npos) << series;
  }
}

TEST_F(FrontendTest, HasTheInstrumentatorsNames) {
  const std::string series =
      "\nhttp_requests_total{model_name=\"demo\",handler=\"/v1/chat/completions\",method=\"POST\","
      "status=\"2xx\"} 0\n";
  EXPECT_NE(get("/metrics").body.find(series), std::string::npos);
  EXPECT_NE(get("/metrics").body.find("\nprocess_open_fds{"), std::string::npos);
}

TEST_F(FrontendTest, LeavesNamesOfOthersOutWhenTheyAreNotWanted) {
  options_.has_vllm_metrics = false;
  EXPECT_EQ(get("/metrics").body.find("\nhttp_"), std::string::npos);
}

TEST_F(FrontendTest, ShowsWhatTheEngineCounts) {
  metrics_.num_blocks_total.set(8);
  metrics_.num_blocks_used.set(2);
  metrics_.time_to_first_token_seconds.observe(0.15);
  const std::string body = get("/metrics").body;
  EXPECT_NE(body.find("tessera_cache_usage_ratio{model_name=\"demo\"} 0.25"), std::string::npos);
  EXPECT_NE(
      body.find("tessera_time_to_first_token_seconds_bucket{model_name=\"demo\",le=\"0.1\"} 0"),
      std::string::npos);
  EXPECT_NE(
      body.find("tessera_time_to_first_token_seconds_bucket{model_name=\"demo\",le=\"0.2\"} 1"),
      std::string::npos);
}

TEST_F(FrontendTest, CountsAnswersAndUnknownFields) {
  const auto bad = post("/v1/completions", R"({"prompt":"hi","n":0})");
  EXPECT_EQ(answer_of(*bad).status, 400);
  submit_completion(R"(,"magic":1)");
  const std::string body = get("/metrics").body;
  EXPECT_NE(body.find("tessera_http_requests_total{model_name=\"demo\",route=\"completions\","
                      "status=\"4xx\"} 1"),
            std::string::npos);
  EXPECT_NE(body.find("tessera_request_unknown_fields_total{model_name=\"demo\"} 1"),
            std::string::npos);
}

TEST_F(FrontendTest, WritesErrorsOfTheHttpServerInTheSameShape) {
  EXPECT_EQ(http_error_body(413, "too large"),
            R"({"error":{"message":"too large","type":"invalid_request_error","param":null,)"
            R"("code":"request_too_large"}})");
}

}  // namespace
}  // namespace tessera::openai
