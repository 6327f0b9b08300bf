#include "engine/weights/safetensors_header.h"

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

#include <nlohmann/json.hpp>

#include "engine/base/text.h"

namespace tessera {
namespace {

using Json = nlohmann::json;
using kernels::DType;

// {"name": {"shape": [1]}}: the root is depth 0, a shape's numbers are depth 3.
constexpr int kMaxDepth = 3;
constexpr const char* kMetadata = "__metadata__";

std::optional<DType> dtype_by_name(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, DType>, 7> kNames = {{
      {"F32", DType::kFloat32},
      {"BF16", DType::kBFloat16},
      {"F16", DType::kFloat16},
      {"F8_E4M3", DType::kFloat8E4M3},
      {"I32", DType::kInt32},
      {"I64", DType::kInt64},
      {"U8", DType::kUint8},
  }};
  for (const auto& [known, dtype] : kNames) {
    if (name == known) {
      return dtype;
    }
  }
  return std::nullopt;
}

// Counts from JSON; nullopt when it is not a list of at most `max_size` sizes.
std::optional<std::vector<int64_t>> read_sizes(const Json& object,
                                               const char* key,
                                               size_t max_size) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array() || found->size() > max_size) {
    return std::nullopt;
  }
  std::vector<int64_t> sizes;
  for (const Json& item : *found) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > INT64_MAX) {
      return std::nullopt;
    }
    sizes.push_back(item.get<int64_t>());
  }
  return sizes;
}

// Bytes of the tensor, or nullopt when they overflow.
std::optional<int64_t> tensor_bytes(const SafetensorsEntry& entry) {
  int64_t bytes = kernels::dtype_bytes(entry.dtype);
  for (int axis = 0; axis < entry.rank; ++axis) {
    if (__builtin_mul_overflow(bytes, entry.shape[static_cast<size_t>(axis)], &bytes)) {
      return std::nullopt;
    }
  }
  return bytes;
}

Result<SafetensorsEntry> read_entry(const std::string& name, const Json& object) {
  SafetensorsEntry entry;
  entry.name = name;
  if (!object.is_object()) {
    return invalid_argument(str_cat(name, ": expected an object, found ", object.type_name()));
  }
  const auto dtype = object.find("dtype");
  if (dtype == object.end() || !dtype->is_string()) {
    return invalid_argument(str_cat(name, ": dtype is missing or not a string"));
  }
  const auto known = dtype_by_name(dtype->get_ref<const std::string&>());
  if (!known) {
    return invalid_argument(str_cat(name, ": dtype ", dtype->dump(), " is not supported"));
  }
  entry.dtype = *known;
  const auto shape = read_sizes(object, "shape", entry.shape.size());
  if (!shape) {
    return invalid_argument(str_cat(name, ": shape is not a list of at most 4 sizes"));
  }
  entry.rank = static_cast<int>(shape->size());
  std::copy(shape->begin(), shape->end(), entry.shape.begin());
  const auto offsets = read_sizes(object, "data_offsets", 2);
  if (!offsets || offsets->size() != 2) {
    return invalid_argument(str_cat(name, ": data_offsets is not a list of two offsets"));
  }
  entry.begin = offsets->at(0);
  entry.end = offsets->at(1);
  const auto bytes = tensor_bytes(entry);
  if (!bytes || entry.begin > entry.end || entry.end - entry.begin != *bytes) {
    return invalid_argument(str_cat(name,
                                    ": shape ",
                                    join_list(*shape),
                                    " of ",
                                    dtype->get_ref<const std::string&>(),
                                    " does not fill data_offsets ",
                                    join_list(*offsets)));
  }
  return entry;
}

// Turns the header's tensors into entries while the JSON is parsed, so that a large header is never
// held as a document, and sees every key, which a document would merge.
class HeaderParser {
 public:
  Status parse(std::string_view text) {
    try {
      const Json rest =
          Json::parse(text, [this](int depth, Json::parse_event_t event, Json& value) {
            return handle(depth, event, value);
          });
      if (status_.is_ok() && !rest.is_object()) {
        return invalid_argument("the header is not a JSON object");
      }
    } catch (const Json::exception& error) {
      return invalid_argument(str_cat("the header is not valid JSON: ", error.what()));
    }
    return status_;
  }
  [[nodiscard]] std::vector<SafetensorsEntry> take() { return std::move(entries_); }

 private:
  // Returns whether the parser keeps the value.
  bool handle(int depth, Json::parse_event_t event, Json& value) {
    if (!status_.is_ok()) {
      return false;
    }
    if (depth > kMaxDepth) {
      status_ = invalid_argument("the header is nested too deeply");
      return false;
    }
    if (event == Json::parse_event_t::key && depth == 1) {
      begin_tensor(value.get_ref<const std::string&>());
    } else if (event == Json::parse_event_t::key && depth == 2) {
      add_key(value.get_ref<const std::string&>());
    } else if (depth == 1 && is_end_of_value(event)) {
      end_tensor(value);
      return false;
    }
    return true;
  }
  static bool is_end_of_value(Json::parse_event_t event) {
    return event == Json::parse_event_t::object_end || event == Json::parse_event_t::array_end ||
           event == Json::parse_event_t::value;
  }
  void begin_tensor(const std::string& name) {
    keys_.clear();
    name_ = name;
    if (!names_.insert(name).second) {
      status_ = invalid_argument(str_cat(name, ": the header names this tensor twice"));
    }
  }
  void add_key(const std::string& key) {
    if (name_ != kMetadata && !keys_.insert(key).second) {
      status_ = invalid_argument(str_cat(name_, ": ", key, " is given twice"));
    }
  }
  void end_tensor(const Json& value) {
    if (name_ == kMetadata) {
      return;
    }
    auto entry = read_entry(name_, value);
    if (!entry.is_ok()) {
      status_ = entry.status();
      return;
    }
    entries_.push_back(std::move(entry).value());
  }

  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> keys_;  // of the tensor being read
  std::string name_;
  std::vector<SafetensorsEntry> entries_;
  Status status_;
};

Status check_tiling(const std::vector<SafetensorsEntry>& entries, int64_t data_bytes) {
  int64_t end = 0;
  std::string before = "the header";
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != end) {
      return invalid_argument(
          str_cat(entry.name,
                  ": begins at ",
                  entry.begin,
                  entry.begin < end ? ", overlapping " : ", leaving a gap after ",
                  before,
                  ", which ends at ",
                  end));
    }
    end = entry.end;
    before = entry.name;
  }
  if (end != data_bytes) {
    return invalid_argument(
        str_cat("the tensors end at byte ", end, ", the file has ", data_bytes, " bytes of data"));
  }
  return Status::ok();
}

}  // namespace

Result<std::vector<SafetensorsEntry>> parse_safetensors_header(std::string_view header_json,
                                                               int64_t data_bytes) {
  HeaderParser parser;
  TESSERA_RETURN_IF_ERROR(parser.parse(header_json));
  auto entries = parser.take();
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  TESSERA_RETURN_IF_ERROR(check_tiling(entries, data_bytes));
  return entries;
}

std::map<std::string, std::string> parse_safetensors_metadata(std::string_view header_json) {
  std::string name;  // of the root's member being read
  const Json header = Json::parse(
      header_json,
      [&](int depth, Json::parse_event_t event, Json& value) {
        if (depth == 1 && event == Json::parse_event_t::key) {
          name = value.get_ref<const std::string&>();
        }
        return depth == 0 || name == kMetadata;
      },
      false);
  std::map<std::string, std::string> texts;
  if (!header.is_object() || !header.contains(kMetadata) || !header[kMetadata].is_object()) {
    return texts;
  }
  for (const auto& [key, value] : header[kMetadata].items()) {
    if (value.is_string()) {
      texts[key] = value.get<std::string>();
    }
  }
  return texts;
}

}  // namespace tessera
