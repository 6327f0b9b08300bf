#include "engine/base/log.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <ctime>
#include <iterator>

#include <nlohmann/json.hpp>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace tessera {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr std::pair<std::string_view, LogLevel> kLevelNames[] = {{"trace", LogLevel::kTrace},
                                                                 {"debug", LogLevel::kDebug},
                                                                 {"info", LogLevel::kInfo},
                                                                 {"warning", LogLevel::kWarning},
                                                                 {"error", LogLevel::kError}};

// What JSON lines have of their own.
constexpr std::string_view kReservedKeys[] = {"ts", "level", "role", "msg"};

struct JsonSettings {
  std::atomic<LogFormat> format{LogFormat::kText};
  std::string role;  // written by init_logging() only
};

JsonSettings& json_settings() {
  static JsonSettings settings;  // of the logger, the one global
  return settings;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

/// A control character could forge a line of the log or drive the terminal that shows it.
void append_escaped(std::string& text, char c) {
  if (c == '"' || c == '\\') {
    text += '\\';
    text += c;
  } else if (c == '\n') {
    text += "\\n";
  } else if (c == '\r') {
    text += "\\r";
  } else if (c == '\t') {
    text += "\\t";
  } else if (is_control(c)) {
    const auto code = static_cast<unsigned char>(c);
    text += {'\\', 'x', kHexDigits[code >> 4], kHexDigits[code & 0xf]};
  } else {
    text += c;
  }
}

/// Escapes whatever is not printable ASCII; what is not UTF-8 becomes U+FFFD.
std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

/// RFC 3339 with nanoseconds.
std::string utc_time_text() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  std::tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  std::array<char, 64> seconds{};
  std::array<char, 16> fraction{};
  (void)std::strftime(seconds.data(), seconds.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  (void)std::snprintf(fraction.data(), fraction.size(), ".%09ldZ", now.tv_nsec);
  return str_cat(seconds.data(), fraction.data());
}

}  // namespace

bool parse_log_level(std::string_view name, LogLevel& level) {
  for (const auto& [candidate, value] : kLevelNames) {
    if (candidate == name) {
      level = value;
      return true;
    }
  }
  return false;
}

bool parse_log_format(std::string_view name, LogFormat& format) {
  if (name != "text" && name != "json") {
    return false;
  }
  format = name == "json" ? LogFormat::kJson : LogFormat::kText;
  return true;
}

void init_logging(LogLevel level, LogFormat format, std::string_view role) {
  spdlog::drop("tessera");
  auto logger = spdlog::stderr_color_mt("tessera");
  logger->set_pattern(format == LogFormat::kJson ? "%v" : "%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  logger->set_level(to_spdlog(level));
  spdlog::set_default_logger(std::move(logger));
  json_settings().role = role;
  json_settings().format = format;
}

LogFormat log_format() noexcept {
  return json_settings().format.load(std::memory_order_relaxed);
}

bool is_log_enabled(LogLevel level) noexcept {
  return spdlog::default_logger_raw()->should_log(to_spdlog(level));
}

void write_log(LogLevel level, std::string_view event, std::string_view fields) {
  spdlog::logger& logger = *spdlog::default_logger_raw();
  if (log_format() == LogFormat::kJson) {
    logger.log(to_spdlog(level),
               "{}",
               detail::json_log_line(utc_time_text(), level, json_settings().role, event, fields));
    return;
  }
  logger.log(to_spdlog(level), "{}{}{}", event, fields.empty() ? "" : " ", fields);
}

void log_lines(std::string_view event, std::string_view title, std::string_view lines) {
  if (log_format() == LogFormat::kJson) {
    log_info(event, "text", lines);
    return;
  }
  const std::string text = str_cat(title, ":\n", lines);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void detail::append_log_field(
    LogFormat format, std::string_view key, std::string value, bool is_literal, std::string& line) {
  if (format == LogFormat::kText) {
    line += str_cat(line.empty() ? "" : " ", key, "=", quote_log_value(std::move(value)));
    return;
  }
  const bool is_reserved =
      std::find(std::begin(kReservedKeys), std::end(kReservedKeys), key) != std::end(kReservedKeys);
  const bool is_plain = is_literal && value.find('n') == std::string::npos;  // neither nan nor inf
  line += ',';
  line += json_string(str_cat(key, is_reserved ? "_" : ""));
  line += ':';
  line += is_plain ? value : json_string(value);
}

std::string detail::json_log_line(std::string_view time,
                                  LogLevel level,
                                  std::string_view role,
                                  std::string_view event,
                                  std::string_view fields) {
  const auto* name = std::find_if(std::begin(kLevelNames),
                                  std::end(kLevelNames),
                                  [level](const auto& entry) { return entry.second == level; });
  return str_cat(R"({"ts":)",
                 json_string(time),
                 R"(,"level":)",
                 json_string(name->first),
                 R"(,"role":)",
                 json_string(role),
                 R"(,"msg":)",
                 json_string(event),
                 fields,
                 "}");
}

std::string detail::quote_log_value(std::string value) {
  const auto needs_quotes = [](char c) {
    return c == ' ' || c == '"' || c == '=' || is_control(c);
  };
  if (!value.empty() && std::none_of(value.begin(), value.end(), needs_quotes)) {
    return value;
  }
  std::string quoted = "\"";
  for (const char c : value) {
    append_escaped(quoted, c);
  }
  return quoted + '"';
}

}  // namespace tessera
