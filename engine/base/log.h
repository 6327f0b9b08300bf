// Structured logging: an event name, then key=value. Never log prompts or generated text.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "engine/base/text.h"

namespace tessera {

enum class LogLevel { kTrace, kDebug, kInfo, kWarning, kError };

enum class LogFormat {
  kText,  ///< 2026-11-22T15:40:09.123 info model_loaded seconds=3.2
  kJson,  ///< {"ts":"2026-11-22T15:40:09.123456789Z","level":"info","role":"decode",
          ///< "msg":"model_loaded","seconds":3.2}; a field that is called like one of the first
          ///< four gets an underscore behind its name
};

/// Parses "trace", "debug", "info", "warning", "error"; false when `name` is none of them.
[[nodiscard]] bool parse_log_level(std::string_view name, LogLevel& level);
/// Parses "text" and "json"; false when `name` is neither.
[[nodiscard]] bool parse_log_format(std::string_view name, LogFormat& format);

/// Sets level, format and sink (stderr) of the whole process, and what JSON lines give as `role`.
/// From main, before there are other threads.
void init_logging(LogLevel level, LogFormat format = LogFormat::kText, std::string_view role = {});

void write_log(LogLevel level, std::string_view event, std::string_view fields);
[[nodiscard]] bool is_log_enabled(LogLevel level) noexcept;
[[nodiscard]] LogFormat log_format() noexcept;
/// Lines for people, as they are after "title:"; in JSON one event with the field `text`.
void log_lines(std::string_view event, std::string_view title, std::string_view lines);

namespace detail {
/// As is, or quoted when it is empty or holds a space, a quote, '=' or a control character.
[[nodiscard]] std::string quote_log_value(std::string value);
/// Adds ` key=value` or `,"key":value`. `is_literal`: a number or a truth value, which JSON takes
/// as it is.
void append_log_field(
    LogFormat format, std::string_view key, std::string value, bool is_literal, std::string& line);
/// Fields as append_log_field() left them.
[[nodiscard]] std::string json_log_line(std::string_view time,
                                        LogLevel level,
                                        std::string_view role,
                                        std::string_view event,
                                        std::string_view fields);

template <typename Value>
[[nodiscard]] std::string log_value_text(const Value& value) {
  if constexpr (std::is_same_v<Value, bool>) {
    return value ? "true" : "false";
  } else {
    return str_cat(value);
  }
}

inline void append_fields(LogFormat, std::string&) {}
template <typename Value, typename... Rest>
void append_fields(LogFormat format,
                   std::string& line,
                   std::string_view key,
                   const Value& value,
                   const Rest&... rest) {
  constexpr bool is_literal =
      std::is_same_v<Value, bool> || (std::is_arithmetic_v<Value> && sizeof(Value) > 1);
  append_log_field(format, key, log_value_text(value), is_literal, line);
  append_fields(format, line, rest...);
}
template <typename... Fields>
void log_fields(LogLevel level, std::string_view event, const Fields&... fields) {
  static_assert(sizeof...(Fields) % 2 == 0, "fields come as key, value pairs");
  if (!is_log_enabled(level)) {
    return;
  }
  std::string line;
  append_fields(log_format(), line, fields...);
  write_log(level, event, line);
}
}  // namespace detail

/// log_info("model_loaded", "seconds", 3.2, "parameters", 28'250'112);
template <typename... Fields>
void log_trace(std::string_view event, const Fields&... fields) {
  detail::log_fields(LogLevel::kTrace, event, fields...);
}
template <typename... Fields>
void log_debug(std::string_view event, const Fields&... fields) {
  detail::log_fields(LogLevel::kDebug, event, fields...);
}
template <typename... Fields>
void log_info(std::string_view event, const Fields&... fields) {
  detail::log_fields(LogLevel::kInfo, event, fields...);
}
template <typename... Fields>
void log_warning(std::string_view event, const Fields&... fields) {
  detail::log_fields(LogLevel::kWarning, event, fields...);
}
template <typename... Fields>
void log_error(std::string_view event, const Fields&... fields) {
  detail::log_fields(LogLevel::kError, event, fields...);
}

}  // namespace tessera
