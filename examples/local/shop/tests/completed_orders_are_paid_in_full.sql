-- A return is refunded outside these tables, so an order is paid in full at its gross amount.
select
    order_id,
    gross_amount + shipping_amount as due_amount,
    paid_amount
from {{ ref('orders') }}
where status = 'completed'
    and paid_amount <> gross_amount + shipping_amount
