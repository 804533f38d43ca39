with orders as (
    select
        customer_id,
        count(*) as orders,
        min(ordered_on) as first_ordered_on,
        max(ordered_on) as last_ordered_on,
        {{ euros('sum(net_amount)') }} as net_amount
    from {{ ref('orders') }}
    where status <> 'cancelled'
    group by customer_id
)

select
    customers.customer_id,
    customers.first_name,
    customers.country,
    customers.signed_up_on,
    coalesce(orders.orders, 0) as orders,
    orders.first_ordered_on,
    orders.last_ordered_on,
    coalesce(orders.net_amount, 0) as net_amount,
    case
        when orders.last_ordered_on is null then 'prospect'
        when orders.last_ordered_on < {{ cut_off_day() }} - 90 then 'lapsed'
        else 'active'
    end as standing
from {{ ref('stg_customers') }} as customers
left join orders on customers.customer_id = orders.customer_id
where customers.signed_up_on <= {{ cut_off_day() }}
