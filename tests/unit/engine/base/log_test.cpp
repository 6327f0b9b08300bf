#include "engine/base/log.h"

#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace tessera {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

/// What `write` logs. The process's log is set up once, at level info.
std::string logged_by(const std::function<void()>& write) {
  [[maybe_unused]] static const bool is_ready = (init_logging(LogLevel::kInfo), true);
  CaptureStderr();
  write();
  return GetCapturedStderr();
}

TEST(LogTest, ParsesTheLevelNames) {
  constexpr struct {
    std::string_view name;
    LogLevel level;
  } kNames[] = {{"trace", LogLevel::kTrace},
                {"debug", LogLevel::kDebug},
                {"info", LogLevel::kInfo},
                {"warning", LogLevel::kWarning},
                {"error", LogLevel::kError}};
  for (const auto& expected : kNames) {
    LogLevel level = expected.level == LogLevel::kTrace ? LogLevel::kError : LogLevel::kTrace;
    EXPECT_TRUE(parse_log_level(expected.name, level)) << expected.name;
    EXPECT_EQ(level, expected.level) << expected.name;
  }
}

TEST(LogTest, LeavesTheLevelAloneForOtherNames) {
  for (const std::string_view name : {"", "warn", "INFO", "info ", "errors"}) {
    LogLevel level = LogLevel::kDebug;
    EXPECT_FALSE(parse_log_level(name, level)) << name;
    EXPECT_EQ(level, LogLevel::kDebug) << name;
  }
}

TEST(LogTest, QuotesOnlyWhatNeedsIt) {
  const std::string_view plain[] = {"model", "3.25", "/v1/chat", "a:b,c", "C:\\x", "gr\xc3\xbcn"};
  for (const std::string_view value : plain) {
    EXPECT_EQ(detail::quote_log_value(std::string(value)), value);
  }
  constexpr std::pair<std::string_view, std::string_view> kQuoted[] = {
      {"", "\"\""},
      {"two words", "\"two words\""},
      {"key=value", "\"key=value\""},
      {"say \"hi\"", R"("say \"hi\"")"},
      {"a \\ b", R"("a \\ b")"},
  };
  for (const auto& [value, quoted] : kQuoted) {
    EXPECT_EQ(detail::quote_log_value(std::string(value)), quoted);
  }
}

TEST(LogTest, LetsNoControlCharacterThrough) {
  EXPECT_EQ(detail::quote_log_value("a\nb\rc\td"), R"("a\nb\rc\td")");
  EXPECT_EQ(detail::quote_log_value("\x1b[2J"), R"("\x1b[2J")");
  for (int code = 0; code < 0x20; ++code) {
    const std::string quoted = detail::quote_log_value(std::string(1, static_cast<char>(code)));
    for (const char c : quoted) {
      EXPECT_GE(c, ' ') << "code " << code;
    }
  }
  EXPECT_EQ(detail::quote_log_value("\x7f"), R"("\x7f")");
  EXPECT_EQ(detail::quote_log_value(std::string("\0", 1)), R"("\x00")");
}

TEST(LogTest, WritesEventAndFieldsOnOneLine) {
  const std::string line = logged_by([] {
    log_info("model_loaded", "seconds", 3.5, "parameters", 28, "name", "two words\nmore");
  });
  EXPECT_THAT(line, HasSubstr("info"));
  EXPECT_THAT(line, EndsWith("model_loaded seconds=3.5 parameters=28 name=\"two words\\nmore\"\n"));
}

TEST(LogTest, TakesBracesAsText) {
  EXPECT_THAT(logged_by([] { log_warning("odd", "text", "{}{0}"); }), EndsWith("odd text={}{0}\n"));
  EXPECT_THAT(logged_by([] { log_error("a{}b"); }), EndsWith("a{}b\n"));
}

TEST(LogTest, WritesNothingBelowItsLevel) {
  EXPECT_EQ(logged_by([] {
              log_debug("hidden", "key", 1);
              log_trace("hidden");
            }),
            "");
  EXPECT_FALSE(is_log_enabled(LogLevel::kDebug));
  EXPECT_TRUE(is_log_enabled(LogLevel::kInfo));
}

TEST(JsonLogTest, ParsesTheFormatNames) {
  LogFormat format = LogFormat::kText;
  EXPECT_TRUE(parse_log_format("json", format));
  EXPECT_EQ(format, LogFormat::kJson);
  EXPECT_TRUE(parse_log_format("text", format));
  EXPECT_EQ(format, LogFormat::kText);
  EXPECT_FALSE(parse_log_format("JSON", format));
}

nlohmann::json json_fields(const std::function<void(std::string&)>& append) {
  std::string fields;
  append(fields);
  return nlohmann::json::parse(
      detail::json_log_line("2026-01-02T03:04:05.000000006Z", LogLevel::kInfo, "r", "e", fields));
}

TEST(JsonLogTest, HasTheFourFirstKeysAndThenFields) {
  std::string fields;
  detail::append_fields(LogFormat::kJson, fields, "n", 3, "text", "two words", "ok", true);
  EXPECT_EQ(detail::json_log_line("t", LogLevel::kWarning, "decode", "worker_up", fields),
            R"({"ts":"t","level":"warning","role":"decode","msg":"worker_up",)"
            R"("n":3,"text":"two words","ok":true})");
}

TEST(JsonLogTest, KeepsNumbersAndQuotesTheRest) {
  const auto json = json_fields([](std::string& fields) {
    detail::append_fields(LogFormat::kJson,
                          fields,
                          "whole",
                          int64_t{-5},
                          "real",
                          1e9,
                          "nan",
                          std::numeric_limits<double>::quiet_NaN(),
                          "infinite",
                          -std::numeric_limits<double>::infinity(),
                          "digits",
                          "12",
                          "byte",
                          'c');
  });
  EXPECT_EQ(json["whole"], -5);
  EXPECT_EQ(json["real"], 1e9);
  EXPECT_EQ(json["nan"], "nan");
  EXPECT_EQ(json["infinite"], "-inf");
  EXPECT_EQ(json["digits"], "12");
  EXPECT_EQ(json["byte"], "c");
}

TEST(JsonLogTest, RenamesFieldsThatAreCalledLikeItsOwnKeys) {
  const auto json = json_fields([](std::string& fields) {
    detail::append_fields(
        LogFormat::kJson, fields, "role", "prefill", "ts", 1, "level", 2, "msg", 3);
  });
  EXPECT_EQ(json["role"], "r");
  EXPECT_EQ(json["role_"], "prefill");
  EXPECT_EQ(json["ts_"], 1);
  EXPECT_EQ(json["level_"], 2);
  EXPECT_EQ(json["msg_"], 3);
  EXPECT_EQ(json["msg"], "e");
}

TEST(JsonLogTest, LetsNothingButPrintableAsciiThrough) {
  for (int code = 0; code < 256; ++code) {
    const std::string value(1, static_cast<char>(code));
    std::string fields;
    detail::append_fields(LogFormat::kJson, fields, "key", value);
    const std::string line = detail::json_log_line("t", LogLevel::kInfo, "", "e", fields);
    for (const char c : line) {
      EXPECT_TRUE(c >= 0x20 && c < 0x7f) << "code " << code;
    }
    const std::string expected = code < 0x80 ? value : "\xef\xbf\xbd";  // no UTF-8: U+FFFD
    EXPECT_EQ(nlohmann::json::parse(line)["key"], expected) << "code " << code;
  }
}

TEST(JsonLogTest, WritesOneObjectALine) {
  (void)logged_by([] {});  // sets the log up as text; below it is changed and changed back
  init_logging(LogLevel::kInfo, LogFormat::kJson, "router");
  CaptureStderr();
  log_info("listening", "url", "http://h:1", "name", "a\nb{}");
  log_lines("configuration", "configuration", "one\ntwo\n");
  log_debug("hidden");
  const std::string text = GetCapturedStderr();
  init_logging(LogLevel::kInfo);
  std::istringstream lines(text);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const auto first = nlohmann::json::parse(line);
  EXPECT_EQ(first["role"], "router");
  EXPECT_EQ(first["msg"], "listening");
  EXPECT_EQ(first["name"], "a\nb{}");
  EXPECT_THAT(first["ts"].get<std::string>(),
              ::testing::MatchesRegex("....-..-..T..:..:..[.].........Z"));
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(nlohmann::json::parse(line)["text"], "one\ntwo\n");
  EXPECT_FALSE(std::getline(lines, line));
}

}  // namespace
}  // namespace tessera
