// Lays out a step's batch from the lists that the engine keeps of each sequence.
#include <stdexcept>
#include <string>

#include "bindings/bindings.h"

namespace ramify {
namespace {

// Reads a list of Python's without a copy. The caller holds the lock of the interpreter.
class Integers {
 public:
  Integers(nb::handle list, const char* name) : list_(list.ptr()) {
    if (!PyList_Check(list_)) throw std::invalid_argument(std::string(name) + " must be a list of integers");
  }
  std::int64_t size() const { return PyList_GET_SIZE(list_); }
  std::int64_t operator[](std::int64_t i) const {
    const long long value = PyLong_AsLongLong(PyList_GET_ITEM(list_, i));
    if (value == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
    return value;
  }

 private:
  PyObject* list_;
};

struct FlatBatch {
  std::int64_t* token_ids;
  std::int64_t* positions;
  std::int64_t* slots;
  std::int64_t* query_start;
  std::int64_t* first_position;
  std::int64_t* table_start;
  std::int32_t* blocks;
};

// Chunks are (tokens, block table, first position, rows); the arrays have room for all of them.
void lay_out(const nb::list& chunks, std::int64_t block_size, std::int64_t rows_in_all, std::int64_t blocks_in_all,
             const nb::tuple& addresses) {
  const auto at = [&](std::size_t i) { return nb::cast<Address>(addresses[i]); };
  const FlatBatch to{pointer<std::int64_t>(at(0)), pointer<std::int64_t>(at(1)), pointer<std::int64_t>(at(2)),
                     pointer<std::int64_t>(at(3)), pointer<std::int64_t>(at(4)), pointer<std::int64_t>(at(5)),
                     pointer<std::int32_t>(at(6))};
  std::int64_t row = 0, block = 0, span = 0;
  to.query_start[0] = to.table_start[0] = 0;
  for (const nb::handle chunk : chunks) {
    const nb::tuple parts = nb::cast<nb::tuple>(chunk);
    const Integers tokens(parts[0], "tokens"), table(parts[1], "a block table");
    const auto first = nb::cast<std::int64_t>(parts[2]), rows = nb::cast<std::int64_t>(parts[3]);
    const std::int64_t needed = (first + rows + block_size - 1) / block_size;
    if (first < 0 || rows < 1 || first + rows > tokens.size() || needed > table.size()) {
      throw std::invalid_argument("chunk " + std::to_string(span) + " of " + std::to_string(rows) + " rows from position " +
                                  std::to_string(first) + " is not within its sequence");
    }
    if (row + rows > rows_in_all || block + needed > blocks_in_all) throw std::invalid_argument("the arrays are too short");
    for (std::int64_t i = 0; i < needed; ++i) to.blocks[block + i] = static_cast<std::int32_t>(table[i]);
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t position = first + i;
      to.token_ids[row + i] = tokens[position];
      to.positions[row + i] = position;
      to.slots[row + i] = to.blocks[block + position / block_size] * block_size + position % block_size;
    }
    to.first_position[span] = first;
    to.query_start[++span] = row += rows;
    to.table_start[span] = block += needed;
  }
}

}  // namespace

void bind_batch(nb::module_& module) { module.def("lay_out", &lay_out); }

}  // namespace ramify
