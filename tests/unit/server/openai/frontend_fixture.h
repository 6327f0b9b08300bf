// A front end over a scripted service, and the client's side of it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/serving/engine_metrics.h"
#include "server/metrics/engine_families.h"
#include "server/openai/openai_frontend.h"
#include "server/openai/protocol/logprobs_json.h"
#include "tests/support/byte_tokenizer.h"
#include "tests/support/fake_exchange.h"
#include "tests/support/scripted_service.h"

namespace tessera::openai {

inline constexpr const char* kTemplate =
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

class FrontendFixture : public testing::Test {
 protected:
  /// Tokens beside single bytes; see ByteTokenizer::kFirstExtra.
  static constexpr int32_t kHello = ByteTokenizer::kFirstExtra;
  static constexpr int32_t kWorld = kHello + 1;
  static constexpr int32_t kStopHead = kHello + 2;
  static constexpr int32_t kStopTail = kHello + 3;
  static constexpr int32_t kHalfCharacter = kHello + 4;
  static constexpr int32_t kOtherHalf = kHello + 5;

  FrontendFixture() : tokenizer_({"Hello", " world", " a##", "#b", "\xE4\xBD", "\xA0"}) {
    options_.served_model_names = {"demo", "alias"};
    options_.model_root = "org/demo";
    options_.version = "1.2.3";
    options_.max_model_len = 100;
  }

  /// The front end, made at first use with options_ as they are then.
  OpenAiFrontend& frontend() {
    if (frontend_ == nullptr) {
      auto chat_template = ChatTemplate::parse(kTemplate);
      EXPECT_TRUE(chat_template.is_ok()) << chat_template.status().to_string();
      template_ = std::make_unique<ChatTemplate>(std::move(chat_template).value());
      auto created = OpenAiFrontend::create(
          options_,
          {service_,
           tokenizer_,
           [this](metrics::FamilyList& list) { metrics::add_engine_families(list, metrics_); },
           template_.get(),
           cluster_json_});
      EXPECT_TRUE(created.is_ok()) << created.status().to_string();
      frontend_ = std::move(created).value();
    }
    return *frontend_;
  }

  std::shared_ptr<http::FakeExchange> send(http::Request request) {
    auto exchange = std::make_shared<http::FakeExchange>();
    frontend().handle(std::move(request), exchange);
    return exchange;
  }
  std::shared_ptr<http::FakeExchange> post(const std::string& path,
                                           const std::string& body,
                                           http::Headers headers = {{"X-Request-Id", "r1"}}) {
    headers.emplace_back("Content-Type", "application/json");
    return send({"POST", path, "", std::move(headers), body, "127.0.0.1:1"});
  }
  http::Response get(const std::string& path, http::Headers headers = {}) {
    const auto exchange = send({"GET", path, "", std::move(headers), "", "127.0.0.1:1"});
    return exchange->response().value_or(http::Response{0, "", {}, "no answer"});
  }

  /// Sends a chat request with `extra` members and waits until the service has it.
  std::shared_ptr<http::FakeExchange> submit_chat(const std::string& extra) {
    return submit("/v1/chat/completions",
                  R"({"messages":[{"role":"user","content":"hi"}],"model":"demo")" + extra + "}");
  }
  std::shared_ptr<http::FakeExchange> submit_completion(const std::string& extra) {
    return submit("/v1/completions", R"({"prompt":"hi","model":"demo")" + extra + "}");
  }
  std::shared_ptr<http::FakeExchange> submit(const std::string& path, const std::string& body) {
    const size_t before = service_.num_submitted();
    auto exchange = post(path, body);
    EXPECT_TRUE(exchange->run_until([&] { return service_.num_submitted() > before; }))
        << exchange->response().value_or(http::Response{}).body;
    return exchange;
  }

  /// The whole answer, as soon as it is complete.
  static http::Response answer_of(http::FakeExchange& exchange) {
    EXPECT_TRUE(exchange.run_until_complete());
    return exchange.response().value_or(http::Response{0, "", {}, "no answer"});
  }
  /// Events sent so far, with the time of creation as 0.
  static std::vector<std::string> events_of(http::FakeExchange& exchange) {
    exchange.run_posted();
    std::vector<std::string> events = exchange.events();
    for (std::string& event : events) {
      constexpr std::string_view kKey = "\"created\":";
      const size_t begin = event.find(kKey);
      if (begin != std::string::npos) {
        event.replace(begin + kKey.size(), event.find(',', begin) - begin - kKey.size(), "0");
      }
    }
    return events;
  }
  static std::string header_of(const http::Response& response, const std::string& name) {
    for (const auto& [key, value] : response.headers) {
      if (key == name) {
        return value;
      }
    }
    return "";
  }
  static nlohmann::json json_of(const http::Response& response) {
    return nlohmann::json::parse(response.body);
  }
  /// A chat chunk with these choices, as the front end writes it for request r1.
  static std::string chat_chunk(const std::string& choices) {
    return R"({"id":"chatcmpl-r1","object":"chat.completion.chunk","created":0,"model":"demo",)"
           R"("system_fingerprint":"tessera","choices":[)" +
           choices + "]";
  }
  static std::string text_chunk(const std::string& choices) {
    return R"({"id":"cmpl-r1","object":"text_completion","created":0,"model":"demo",)"
           R"("system_fingerprint":"tessera","choices":[)" +
           choices + "]";
  }

  OpenAiOptions options_;
  std::function<std::string()> cluster_json_;
  ByteTokenizer tokenizer_;
  EngineMetrics metrics_;
  ScriptedService service_;
  std::unique_ptr<ChatTemplate> template_;
  std::unique_ptr<OpenAiFrontend> frontend_;
};

}  // namespace tessera::openai
